"""The party that answers: which numbers it answered, and what it is owed for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from comity.errors import ComityError, MalformedMessage, PolicyRefusal, ReceiptInvalid, TooManyCalls
from comity.ledger.ledger import Units
from comity.ledger.numbers import MOST_NUMBER, Numbers
from comity.ledger.receipts import SignedStatement
from comity.session.contexts import PeerContext
from comity.session.metering.tally import BLOCK, NUMBER, Metered, Tally
from comity.session.request_queue import Queued


class AnswerMeter:
    """Counts what a party answers one peer. Records: `answered`, with the numbers of a batch; `settled`, with a tally.

    Args:
        context: The party's context opposite the peer that asks.
        metered: What is metered.
    """

    def __init__(self, context: PeerContext, metered: Metered) -> None:
        self._context = context
        self._metered = metered
        self._settled = 0
        self._answered = Numbers()
        self._open: list[Tally] = []
        for record in context.journal.records():
            if record.fields.get("peer") != context.peer.party:
                continue
            if record.kind == "answered":
                self._add(Tally.kept(record.fields))
            elif record.kind == "settled":
                self._close(Tally.kept(record.fields))

    def require_open(self, first: int, count: int = 1, beside: Numbers | None = None) -> None:
        """Checks that requests may be answered: those that were answered before may, for nothing.

        Args:
            first: The number of the first.
            count: How many there are; their numbers follow each other.
            beside: Numbers that are answered with them.

        Raises:
            MalformedMessage: They have no numbers.
            PolicyRefusal: All that was bought is answered.
            TooManyCalls: What was answered is to be settled first.
        """
        if first < 1 or count < 1 or first + count > MOST_NUMBER:
            raise MalformedMessage(
                "the request has no number", expected=f"from 1 to {MOST_NUMBER}", received=f"{count} from {first}"
            )
        after = Numbers([*self._answered.ranges, *([] if beside is None else beside.ranges)])
        after.add(first, count)
        metered = self._metered
        if len(after) == len(self._answered):
            return
        if len(after) > metered.bought:
            raise PolicyRefusal(
                f"every {metered.unit} that was bought is answered",
                expected=f"at most {metered.bought}",
                received=f"{len(after) - metered.bought} more",
                action="agree on a new session",
            )
        if len(after) - self._settled > metered.credit:
            raise TooManyCalls(
                "what was answered is not settled",
                expected=f"at most {metered.credit} answers without a signed request",
                received=f"{len(after) - self._settled - metered.credit} more",
                action="settle, and ask again",
            )

    def open(self, taken: Sequence[Queued], numbers: Callable[[Queued], tuple[int, int]]) -> list[Queued]:
        """Of requests that waited, those that may be answered now, all together; the others are told why not.

        Args:
            taken: The requests, which their role has taken.
            numbers: Of each, the number of the first and how many there are.
        """
        beside, found = Numbers(), list[Queued]()
        for each in taken:
            try:
                self.require_open(*numbers(each), beside)
            except ComityError as error:
                each.answer.set_exception(error)
                continue
            beside.add(*numbers(each))
            found.append(each)
        return found

    def answer(self, batch: Sequence[tuple[int, int, int]]) -> None:
        """Keeps, in one commit, that requests are answered; none of the answers may leave before.

        Args:
            batch: Of each its number, and what it and its answer take on the wire, in bytes.
        """
        new = {number: (asked, answered) for number, asked, answered in batch if number not in self._answered}
        if not new:
            return
        tally = Tally(
            0, Numbers.of(new), sum(asked for asked, _ in new.values()), sum(answered for _, answered in new.values())
        )
        journal, gate = self._context.journal, self._context.gate
        with journal.transaction():
            for block in sorted({(number - 1) // BLOCK for number in new}):
                gate.announce(self._metered.answers, Units(NUMBER, block * BLOCK + 1, BLOCK))
            journal.append("answered", 0, peer=self._context.peer.party, **tally.content)
        self._add(tally)

    @property
    def answered(self) -> int:
        """How many requests were answered, each once."""
        return len(self._answered)

    def tally(self) -> Tally:
        """What is not settled yet."""
        return self._sum(len(self._open))

    def settle(self, request: SignedStatement) -> SignedStatement:
        """Takes the peer's request for what was answered, and signs the receipt; again, what it signed before.

        Raises:
            ReceiptInvalid: It asks for something else than what was answered.
        """
        book, unit = self._context.receipt_book, self._metered.unit
        units = request.statement.units
        made = book.made("receipt", units)
        if made is not None and book.accepted("request", units) == request:
            return made
        tally = self._of(units)
        with self._context.journal.transaction():
            book.accept(request, "request", units, tally.subject, tally.content)
            gate = self._context.gate
            gate.settle(self._metered.asks, "received", units, tally.asked)
            gate.settle(self._metered.answers, "sent", units, tally.answered)
            receipt = book.sign("receipt", tally.units(unit), tally.subject, tally.content)
            self._context.journal.append("settled", 0, peer=self._context.peer.party, **tally.content)
        self._close(tally)
        return receipt

    def _of(self, units: Units) -> Tally:
        """The oldest answers, as many as units are asked for."""
        answered = 0
        for count, each in enumerate(self._open, 1):
            answered += len(each.numbers)
            if Units(self._metered.unit, self._settled + 1, answered) == units:
                return self._sum(count)
        expected = self.tally().units(self._metered.unit)
        raise ReceiptInvalid(
            "the request is not for what was answered", expected=expected, received=units, action="ask for the tally"
        )

    def _sum(self, count: int) -> Tally:
        numbers = Numbers()
        for each in self._open[:count]:
            numbers.update(each.numbers)
        asked, answered = (sum(getattr(each, name) for each in self._open[:count]) for name in ("asked", "answered"))
        return Tally(self._settled + 1, numbers, asked, answered)

    def _add(self, tally: Tally) -> None:
        self._open.append(tally)
        self._answered.update(tally.numbers)

    def _close(self, tally: Tally) -> None:
        left = len(tally.numbers)
        while left > 0:
            left -= len(self._open.pop(0).numbers)
        self._settled += len(tally.numbers)
