"""The party that asks: numbers for its requests, and settlements."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

from comity import faults
from comity.errors import ReceiptInvalid
from comity.ledger.ledger import Units
from comity.ledger.numbers import Numbers
from comity.ledger.receipts import SignedStatement
from comity.session.contexts import PeerContext
from comity.session.metering.tally import BLOCK, NUMBER, Metered, Tally


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

    def number(self, count: int = 1) -> int:
        """The first of numbers in a row that no other request has; that they may be used is durable, in a commit for a thousand.

        Args:
            count: How many.
        """
        with self._lock:
            if self._last + count > self._reserved:
                self._reserve(max(self._last + count, self._reserved + BLOCK))
            first = self._last + 1
            self._last += count
            return first

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

    @property
    def unsettled(self) -> int:
        """How many are answered and not settled yet, as far as their answers have come."""
        return len(self._sizes)

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
