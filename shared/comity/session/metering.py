"""Small requests that are charged one by one, in statements about many.

A durable write for each of thousands of requests would cost a sync each. So each request has a *number*, which names it
whatever happens: asked again, after a cut or a restart, it is answered again and charged once. The party that answers keeps
which numbers a batch of answers is for, in one commit, before any of them leaves. From time to time the two settle: the party
that asked signs a request for as many units as were answered, the other a receipt, over the numbers and the bytes that they
took. Until then it has credit for so many. What was not answered is not charged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from comity import faults
from comity.contract import Json
from comity.errors import ComityError, MalformedMessage, PolicyRefusal, ReceiptInvalid, TooManyCalls
from comity.ledger.ledger import Units
from comity.ledger.numbers import MOST_NUMBER, Numbers
from comity.ledger.receipts import SignedStatement, subject_of
from comity.session.contexts import PeerContext
from comity.session.request_queue import Queued

NUMBER = "number"
"""The unit of what is announced: small requests by their numbers."""

_BLOCK = 1000


@dataclass(frozen=True, slots=True)
class Wire:
    """What a metered call takes on the wire, for the role that answers it.

    Attributes:
        asked: Length of the request, in bytes.
        size: The length of an answer, in bytes.
        arrived: When the request came, on the monotonic clock.
    """

    asked: int
    size: Callable[[Any], int]
    arrived: float

    def ends(self, within_s: float) -> float | None:
        """When it is of no use any more, on the monotonic clock, by a deadline that counts from its arrival; 0 for never."""
        return self.arrived + within_s if within_s else None


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a metered call, for whoever made it.

    Attributes:
        value: What the role returned.
        asked: Length of the request on the wire, in bytes.
        answered: Length of the answer, in bytes.
    """

    value: Any
    asked: int
    answered: int


@dataclass(frozen=True)
class Tally:
    """What was answered and is not charged yet.

    Attributes:
        first: The first unit that is not charged yet.
        numbers: The numbers that were answered.
        asked: What the requests took on the wire, in bytes.
        answered: What the answers took, in bytes.
    """

    first: int
    numbers: Numbers
    asked: int
    answered: int

    @property
    def content(self) -> dict[str, Json]:
        """What both parties sign for."""
        numbers: list[Json] = [[first, last] for first, last in self.numbers.ranges]
        return {"first": self.first, "numbers": numbers, "asked": self.asked, "answered": self.answered}

    @property
    def subject(self) -> bytes:
        """The digest that statements quote."""
        return subject_of(self.content)

    def units(self, unit: str) -> Units:
        """What is charged for it."""
        return Units(unit, self.first, len(self.numbers))

    @classmethod
    def kept(cls, fields: Mapping[str, Any]) -> Tally:
        """What `content` was kept of."""
        return cls(fields["first"], Numbers(fields["numbers"]), fields["asked"], fields["answered"])


@dataclass(frozen=True)
class Metered:
    """What is metered in a session with one peer.

    Attributes:
        unit: What is charged, as the protocol calls it.
        asks: Egress kind of the requests.
        answers: Egress kind of the answers.
        bought: Most that is answered.
        credit: Most that is answered and not settled yet.
    """

    unit: str
    asks: str
    answers: str
    bought: int
    credit: int = 1000


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
            for block in sorted({(number - 1) // _BLOCK for number in new}):
                gate.announce(self._metered.answers, Units(NUMBER, block * _BLOCK + 1, _BLOCK))
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


class Settling(Protocol):
    """What a party that asks calls to settle."""

    def tally(self) -> Tally:
        """What was answered and is not charged yet."""

    def settle(self, request: SignedStatement) -> SignedStatement:
        """The receipt for a signed request."""


@dataclass
class RequestMeter:
    """Numbers what a party asks of one peer, and settles it; for any number of threads.

    Records: `numbered`, with the last number that may be used; `settling` and `settled`, with a tally.

    Args:
        context: The party's context opposite the peer that answers.
        metered: What is metered.
    """

    context: PeerContext
    metered: Metered
    _last: int = 0
    _reserved: int = 0
    _settled: Numbers = field(default_factory=Numbers)
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    _unfinished: Tally | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _settling: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Goes on after the numbers that may have been used."""
        for record in self.context.journal.records():
            if record.fields.get("peer") != self.context.peer.party:
                continue
            if record.kind == "numbered":
                self._last = self._reserved = int(str(record.fields["last"]))
            elif record.kind == "settling":
                self._unfinished = Tally.kept(record.fields)
            elif record.kind == "settled":
                self._close(Tally.kept(record.fields))

    def number(self) -> int:
        """A number that no other request has; that it may be used is durable, in a commit for a thousand."""
        with self._lock:
            if self._last == self._reserved:
                self._reserve(self._reserved + _BLOCK)
            self._last += 1
            return self._last

    def use(self, last: int) -> None:
        """Lets the caller give numbers by itself, up to one: where the same is asked again, by the same number."""
        with self._lock:
            if last > self._reserved:
                self._reserve(last)
            self._last = max(self._last, last)

    def _reserve(self, last: int) -> None:
        journal, first = self.context.journal, self._reserved + 1
        with journal.transaction():
            journal.append("numbered", 0, peer=self.context.peer.party, last=last)
            self.context.gate.announce(self.metered.asks, Units(NUMBER, first, last - first + 1))
        self._reserved = last

    def answered(self, number: int, asked: int, answered: int) -> int:
        """Notes what a request and its answer took on the wire, in bytes; returns how many are not settled yet."""
        with self._lock:
            if number not in self._settled:
                self._sizes[number] = (asked, answered)
            return len(self._sizes)

    @property
    def charged(self) -> int:
        """How many requests are charged."""
        return len(self._settled)

    def settle(self, port: Settling) -> int:
        """Signs for what was answered, and takes the receipt; what was begun before a cut or a restart first.

        Returns:
            How many requests are charged by that.

        Raises:
            ReceiptInvalid: What is asked for was not asked, or is charged already.
            TransportError: The peer does not answer; nothing is lost.
        """
        with self._settling:
            charged = 0 if self._unfinished is None else self._finish(self._unfinished, port)
            tally = port.tally()
            if not tally.numbers:
                return charged
            self._require_due(tally)
            peer = self.context.peer.party
            with self.context.journal.transaction():
                self.context.journal.append("settling", 0, peer=peer, **tally.content)
                self._signed(tally)
            self._unfinished = tally
            return charged + self._finish(tally, port)

    def _signed(self, tally: Tally) -> SignedStatement:
        units = tally.units(self.metered.unit)
        return self.context.receipt_book.sign("request", units, tally.subject, tally.content)

    def _finish(self, tally: Tally, port: Settling) -> int:
        receipt = port.settle(self._signed(tally))
        units = tally.units(self.metered.unit)
        with self.context.journal.transaction():
            self.context.receipt_book.accept(receipt, "receipt", units, tally.subject, tally.content)
            self.context.gate.settle(self.metered.asks, "sent", units, tally.asked)
            self.context.gate.settle(self.metered.answers, "received", units, tally.answered)
            self.context.journal.append("settled", 0, peer=self.context.peer.party, **tally.content)
        faults.point("receipt")
        with self._lock:
            self._close(tally)
        return len(tally.numbers)

    def _close(self, tally: Tally) -> None:
        self._settled.update(tally.numbers)
        self._unfinished = None
        for number in tally.numbers:
            self._sizes.pop(number, None)

    def _require_due(self, tally: Tally) -> None:
        """Checks that a peer wants to be paid for what was asked, once."""
        with self._lock:
            known = [self._sizes.get(number) for number in tally.numbers] if tally.numbers.last <= self._last else []
            sums = [sum(each[at] for each in known if each is not None) for at in (0, 1)]
            first, most = len(self._settled) + 1, self._last
            twice = self._settled.overlaps(tally.numbers)
        for what, holds, expected, received in (
            ("has another first unit", tally.first == first, first, tally.first),
            ("is for numbers that were not asked", tally.numbers.last <= most, f"up to {most}", tally.numbers.last),
            ("is for numbers that are charged", not twice, "others", tally.numbers.ranges[:8]),
            (
                "says other sizes",
                None in known or sums == [tally.asked, tally.answered],
                sums,
                [tally.asked, tally.answered],
            ),
        ):
            if not holds:
                raise ReceiptInvalid(
                    f"the tally of {self.context.peer.party} {what}",
                    expected=expected,
                    received=received,
                    action="compare both ledgers: comity ledger compare",
                )
