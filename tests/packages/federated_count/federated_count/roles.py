"""Both roles; either's state follows from its journal, whose records `finished` hold a round's count and sum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from comity.contract import Json
from comity.errors import ComityError, RoundOutOfOrder
from comity.ledger.receipts import SignedStatement, subject_of
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.outcome import Outcome


class Adding(Protocol):
    """What the client asks of the server."""

    def add(self, round: int, count: int, request: SignedStatement) -> tuple[int, SignedStatement]:
        """The sum of both counts, with the server's receipt of the client's."""

    def acknowledge(self, round: int) -> None:
        """The client has the sum."""


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


class Client(Counting):
    """The initiator.

    Args:
        context: Its context opposite the server.
        server: The port to the server.
    """

    def __init__(self, context: PeerContext, server: Adding) -> None:
        super().__init__(context)
        self._server = server

    def work(self) -> Iterator[None]:
        """See `Initiator.work`."""
        book = self._context.receipt_book
        for round in range(len(self._sums) + 1, self._context.contract.rounds + 1):
            count = self._context.task.count(round)
            subject = subject_of({"count": count})
            sum, receipt = self._server.add(round, count, book.sign("request", round, subject))
            book.accept(receipt, "receipt", round, subject)
            self._server.acknowledge(round)
            self._finish(round, sum)
            yield

    def outcome(self) -> Outcome:
        """See `Initiator.outcome`."""
        return Outcome((), {"sum": sum(self._sums), "sum_by_round": self._sums})


class Server(Counting):
    """The acceptor; it has nothing to do but to answer."""

    def add(self, round: int, count: int, request: SignedStatement) -> tuple[int, SignedStatement]:
        """See `Adding.add`."""
        if not 0 < round <= min(len(self._sums) + 1, self._context.contract.rounds):
            raise RoundOutOfOrder(
                "that round is not open", expected=f"{len(self._sums) + 1}", received=round, action="go on in order"
            )
        book, subject = self._context.receipt_book, subject_of({"count": count})
        book.accept(request, "request", round, subject)
        receipt = book.sign("receipt", round, subject)
        if round > len(self._sums):
            self._finish(round, self._context.task.count(round) + count)
        return self._sums[round - 1], receipt

    def advance(self) -> bool:
        """See `Steppable.advance`."""
        return False

    def fail(self, error: ComityError) -> None:
        """See `Steppable.fail`: nobody waits here."""
