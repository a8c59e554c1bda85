"""A node's own record of what was agreed, what left and what came.

Append-only: each entry holds the hash of the one before it, so that an edit, a swap or a removal shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from blake3 import blake3

from comity.contract import EgressKind, Json, canonical

Direction = Literal["sent", "received"]

Matter = Literal["opened", "intended", "delivered", "receipt", "ended", "privacy"]
"""What an entry is about: a session was agreed (its contract's hash, its members and their keys); something is about to
leave; something left or came; a signed statement was made or received; a session ended; a session's training, which is about to begin, spends some of the privacy budget."""

GENESIS = "0" * 64
"""What the first entry of a chain names as the hash before it."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What an entry says. No two entries of a ledger say the same: what happens again is not counted again.

    Attributes:
        matter: What it is about.
        session: Session it belongs to.
        round: Round it belongs to; 0 for the session as a whole.
        peer: Party on the other side.
        direction: Whether it leaves this node or came to it; None for matters that do neither.
        kind: Egress kind of what crosses; None for matters that do not cross.
        subject: What it is, unique among its kind in the round: a blob's digest, or a message's name and index.
        size: Length on the wire before transport encryption, in bytes.
        body: For `opened`, `receipt` and `privacy`, what was agreed, stated or spent.
    """

    matter: Matter
    session: str
    round: int = 0
    peer: str = ""
    direction: Direction | None = None
    kind: EgressKind | None = None
    subject: str = ""
    size: int = 0
    body: Mapping[str, Json] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """What makes two facts the same, as one text."""
        key = [self.matter, self.session, self.round, self.peer, self.direction, self.kind, self.subject]
        return canonical(key).decode()


@dataclass(frozen=True, slots=True)
class Entry:
    """A connection of the chain.

    Attributes:
        index: Position in the chain, from 0.
        fact: What it says.
        time: When, UTC, ISO 8601; never before the entry before it.
        previous: Hash of the entry before.
        hash: Hash of this entry, which covers all other fields.
    """

    index: int
    fact: Fact
    time: str
    previous: str
    hash: str = ""

    def computed_hash(self) -> str:
        """The hash that this entry must have: BLAKE3 over the canonical form of its fields, hexadecimal."""
        fact = self.fact
        said = [fact.matter, fact.session, fact.round, fact.peer, fact.direction, fact.kind, fact.subject, fact.size]
        return blake3(canonical([self.index, said, fact.body, self.time, self.previous])).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain.

    Attributes:
        length: Number of entries.
        hash: Hash of the last one; of none, `GENESIS`.
    """

    length: int = 0
    hash: str = GENESIS


class Ledger(Protocol):
    """Where entries are kept."""

    def record(self, fact: Fact) -> bool:
        """Appends an entry, durably, unless the same fact stands there already; returns whether it was new."""

    def entries(self, session: str | None = None) -> Iterable[Entry]:
        """The entries in order: all of them, or those of one session."""

    def head(self) -> Head:
        """The end of the chain."""


def bytes_by_kind(entries: Iterable[Entry], direction: Direction) -> dict[str, int]:
    """Bytes that were delivered in one direction, by egress kind."""
    totals: dict[str, int] = {}
    for entry in entries:
        fact = entry.fact
        if fact.matter == "delivered" and fact.direction == direction and fact.kind is not None:
            totals[fact.kind] = totals.get(fact.kind, 0) + fact.size
    return totals
