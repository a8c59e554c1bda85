"""A node's own record of what left and what came.

Append-only: each entry holds the hash of the one before it, so that an edit, a swap or a removal shows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from blake3 import blake3

from comity.contract import EgressKind, canonical
from comity.errors import LedgerBroken

Direction = Literal["sent", "received"]

GENESIS = "0" * 64
"""What the first entry of a chain names as the hash before it."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """Something that left or came.

    Attributes:
        session: Session it belongs to.
        round: Round it belongs to; 0 for the session as a whole.
        direction: Whether it left this node or came to it.
        kind: Egress kind.
        subject: What it was, unique among its kind in the round: a blob's digest, or a message's name and index.
        size: Length on the wire before transport encryption, in bytes.
        peer: Party on the other side.
    """

    session: str
    round: int
    direction: Direction
    kind: EgressKind
    subject: str
    size: int
    peer: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A link of the chain.

    Attributes:
        index: Position in the chain, from 0.
        crossing: What left or came.
        time: When, UTC, ISO 8601.
        previous: Hash of the entry before.
        hash: Hash of this entry, which covers all other fields.
    """

    index: int
    crossing: Crossing
    time: str
    previous: str
    hash: str = field(default="")

    def computed_hash(self) -> str:
        """The hash that this entry must have."""
        crossing = self.crossing
        fields = [crossing.session, crossing.round, crossing.direction, crossing.kind]
        fields += [crossing.subject, crossing.size, crossing.peer]
        return blake3(canonical([self.index, fields, self.time, self.previous])).hexdigest()


class Ledger(Protocol):
    """Where entries are kept."""

    def record(self, crossing: Crossing) -> None:
        """Appends an entry, unless the same crossing stands there already: what is sent again is not counted again."""

    def entries(self, session: str | None = None) -> Sequence[Entry]:
        """The entries in order: all of them, or those of one session."""


class MemoryLedger:
    """A ledger that lives as long as its process."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._seen: set[tuple[str, int, Direction, EgressKind, str, str]] = set()
        self._lock = threading.Lock()

    def record(self, crossing: Crossing) -> None:
        """See `Ledger.record`."""
        key = (crossing.session, crossing.round, crossing.direction, crossing.kind, crossing.subject, crossing.peer)
        with self._lock:
            if key in self._seen:
                return
            previous = self._entries[-1].hash if self._entries else GENESIS
            draft = Entry(len(self._entries), crossing, datetime.now(UTC).isoformat(), previous)
            self._entries.append(Entry(draft.index, crossing, draft.time, previous, draft.computed_hash()))
            self._seen.add(key)

    def entries(self, session: str | None = None) -> Sequence[Entry]:
        """See `Ledger.entries`."""
        with self._lock:
            return [entry for entry in self._entries if session in {None, entry.crossing.session}]


def verify(entries: Iterable[Entry]) -> None:
    """Checks a whole chain.

    Raises:
        LedgerBroken: Names the first entry that does not fit.
    """
    previous = GENESIS
    for position, entry in enumerate(entries):
        if entry.index != position:
            raise LedgerBroken(f"ledger entry {position} is out of place", expected=position, received=entry.index)
        if entry.previous != previous:
            raise LedgerBroken(f"ledger entry {position} breaks the chain", expected=previous, received=entry.previous)
        if entry.hash != entry.computed_hash():
            raise LedgerBroken(
                f"ledger entry {position} was changed", expected=entry.computed_hash(), received=entry.hash
            )
        previous = entry.hash


def bytes_by_kind(entries: Iterable[Entry], direction: Direction) -> dict[str, int]:
    """Bytes that crossed in one direction, by egress kind."""
    totals: dict[str, int] = {}
    for entry in entries:
        crossing = entry.crossing
        if crossing.direction == direction:
            totals[crossing.kind] = totals.get(crossing.kind, 0) + crossing.size
    return totals
