"""Both roles; either's state follows from its journal, whose records `finished` hold a round's count and sum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from comity.contract import Json
from comity.errors import ComityError, RoundOutOfOrder
from comity.ledger.ledger import in_round
from comity.ledger.receipts import SignedStatement, subject_of
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.outcome import Outcome


class Adding(Protocol):
    """What the analyst asks of the site."""

    def add(self, round: int, count: int, request: SignedStatement) -> tuple[int, SignedStatement]:
        """The sum of both counts, with the site's receipt of the analyst's."""

    def acknowledge(self, round: int) -> None:
        """The analyst has the sum."""


class Counting:
    """A party's own counts, and the sums that it knows.

    Args:
        context: Its context opposite the other.
    """

    def __init__(self, context: PeerContext) -> None:
        self._context = context
        self._sums: list[Any] = [each.fields["sum"] for each in context.journal.records() if each.kind == "finished"]

    def _finish(self, round: int, sum: int) -> None:
        fields: dict[str, Json] = {"count": self._context.task.count(round), "sum": sum}
        self._context.journal.append("finished", round, **fields)
        self._sums.append(sum)
        self._context.observe(Event("round-finished", round, fields))


class Analyst(Counting):
    """The initiator.

    Args:
        context: Its context opposite the site.
        site: The port to the site.
    """

    def __init__(self, context: PeerContext, site: Adding) -> None:
        super().__init__(context)
        self._site = site

    def work(self) -> Iterator[None]:
        """See `Initiator.work`."""
        book = self._context.receipt_book
        for round in range(len(self._sums) + 1, self._context.contract.rounds + 1):
            count, units = self._context.task.count(round), in_round(round)
            subject = subject_of({"count": count})
            sum, receipt = self._site.add(round, count, book.sign("request", units, subject))
            book.accept(receipt, "receipt", units, subject)
            self._site.acknowledge(round)
            self._finish(round, sum)
            yield

    def outcome(self) -> Outcome:
        """See `Initiator.outcome`."""
        return Outcome((), {"sum": sum(self._sums), "sum_by_round": self._sums})


class Site(Counting):
    """The acceptor; it has nothing to do but to answer."""

    def add(self, round: int, count: int, request: SignedStatement) -> tuple[int, SignedStatement]:
        """See `Adding.add`."""
        if not 0 < round <= min(len(self._sums) + 1, self._context.contract.rounds):
            raise RoundOutOfOrder(
                "that round is not open", expected=f"{len(self._sums) + 1}", received=round, action="go on in order"
            )
        book, subject = self._context.receipt_book, subject_of({"count": count})
        book.accept(request, "request", in_round(round), subject)
        receipt = book.sign("receipt", in_round(round), subject)
        if round > len(self._sums):
            self._finish(round, self._context.task.count(round) + count)
        return self._sums[round - 1], receipt

    def advance(self) -> bool:
        """See `Steppable.advance`."""
        return False

    def fail(self, error: ComityError) -> None:
        """See `Steppable.fail`: nobody waits here."""
