"""A node's own record of what was agreed, what left and what came.

Append-only, a chain for each peer of each session: an entry holds the hash of the one before it, so that an edit, a swap
or a removal shows. A chain of the node's own says which chains there are and how they ended, so that one that was removed
shows too. What is signed quotes the chain of its session and peer alone: it tells the peer nothing of other sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from blake3 import blake3

from comity.contract import Json, canonical

Direction = Literal["sent", "received"]

Matter = Literal[
    "opened", "intended", "delivered", "receipt", "ended", "privacy", "judged", "used", "chain-opened", "chain-ended"
]
"""What an entry is about: a session was agreed (its contract's hash, its members and their keys); something is about to
leave; something left or came; a signed statement was made or received; a session ended; a session's training, which is
about to begin, spends some of the privacy budget; something that was trained to be sent was judged by the leak guard; something that came was trained by. In the node's own
chain: a chain was begun; a chain ended, and where."""

GENESIS = "0" * 64
"""What the first entry of a chain names as the hash before it."""

ROUND = "round"
"""The unit of protocols whose work is bought in rounds."""


@dataclass(frozen=True, slots=True)
class Units:
    """Units of a session's work that follow each other: a round, or requests 101 to 200.

    Attributes:
        unit: What is counted, as the protocol calls it; empty for the session as a whole.
        first: The first of them, counted from 1.
        count: How many they are.
    """

    unit: str = ""
    first: int = 0
    count: int = 0

    @property
    def last(self) -> int:
        """The last of them."""
        return self.first + self.count - 1

    def overlaps(self, other: Units) -> bool:
        """Whether some unit is in both."""
        return self.unit == other.unit and self.first <= other.last and other.first <= self.last

    def covers(self, other: Units) -> bool:
        """Whether all units of another are in this."""
        return self.unit == other.unit and self.first <= other.first and other.last <= self.last

    def __str__(self) -> str:
        """The units in words: `round 3`, `requests 101 to 200`."""
        if not self.unit:
            return "the session"
        return f"{self.unit} {self.first}" if self.count == 1 else f"{self.unit}s {self.first} to {self.last}"


WHOLE = Units()
"""The session as a whole."""


def in_round(round: int) -> Units:
    """One round; 0 is the session as a whole."""
    return Units(ROUND, round, 1) if round else WHOLE


class ChainName(NamedTuple):
    """Which chain: that of a session with a peer, or, empty, the node's own."""

    session: str = ""
    peer: str = ""

    def __str__(self) -> str:
        """The chain in words."""
        if not self.session:
            return "the node's own chain"
        return f"session {self.session} with {self.peer}" if self.peer else f"session {self.session}"


OWN = ChainName()
"""The node's own chain."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What an entry says. No two entries of a ledger say the same: what happens again is not counted again.

    Attributes:
        matter: What it is about.
        session: Session it belongs to.
        units: What of the session's work it belongs to.
        peer: Party on the other side.
        direction: Whether it leaves this node or came to it; None for matters that do neither.
        kind: Egress kind of what crosses; None for matters that do not cross.
        subject: What it is, unique among its kind in its units: a blob's digest, or a message's name and index.
        size: Length on the wire before transport encryption, in bytes.
        body: For `opened`, `receipt`, `privacy` and `judged`, what was agreed, stated, spent or found; for `chain-ended`, the final head.
    """

    matter: Matter
    session: str
    units: Units = WHOLE
    peer: str = ""
    direction: Direction | None = None
    kind: str | None = None
    subject: str = ""
    size: int = 0
    body: Mapping[str, Json] = field(default_factory=dict)

    @property
    def chain(self) -> ChainName:
        """The chain that it belongs to."""
        own = self.matter in {"chain-opened", "chain-ended"}
        return OWN if own else ChainName(self.session, self.peer)

    @property
    def identity(self) -> str:
        """What makes two facts the same, as one text."""
        units = self.units
        key = [self.matter, self.session, units.unit, units.first, units.count]
        return canonical([*key, self.peer, self.direction, self.kind, self.subject]).decode()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a chain.

    Attributes:
        index: Position in its chain, from 0.
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
        return hash_of(self.index, self.fact, self.time, self.previous)


def hash_of(index: int, fact: Fact, time: str, previous: str) -> str:
    """The hash of the entry that has these fields."""
    units = fact.units
    said = [fact.matter, fact.session, units.unit, units.first, units.count, fact.peer]
    said += [fact.direction, fact.kind, fact.subject, fact.size]
    return blake3(canonical([index, said, fact.body, time, previous])).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain.

    Attributes:
        length: Number of entries.
        hash: Hash of the last one; of none, `GENESIS`.
    """

    length: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of a ledger.

    Attributes:
        name: Which one it is.
        head: What is kept of its end.
        entries: Its entries in order.
    """

    name: ChainName
    head: Head
    entries: Iterable[Entry]


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """What the chains of all sessions hold, without their entries.

    Attributes:
        entries: How many there are.
        sent: Bytes that were delivered, by egress kind.
        received: Bytes that came, likewise.
        tail: The last entries, oldest first.
    """

    entries: int
    sent: Mapping[str, int]
    received: Mapping[str, int]
    tail: Sequence[Entry]


class Crossed(NamedTuple):
    """What crossed between this node and a peer, of one kind, in one direction.

    Attributes:
        direction: Whether it left or came.
        peer: The other party.
        kind: Egress kind.
        size: In bytes.
    """

    direction: str
    peer: str
    kind: str
    size: int


class Ledger(Protocol):
    """Where entries are kept."""

    def record(self, fact: Fact) -> bool:
        """Appends an entry to its chain, unless the same fact stands there; returns whether it was new.

        With a chain's first entry, and with the fact that the session ended, the node's own chain gets an entry too.
        """

    def sync(self) -> None:
        """Waits until what was written is durable. Nothing leaves a node before: the gate sees to that.

        What is killed with its process is there without it, and after a loss of power what is there ends somewhere, with
        nothing missing before that.
        """

    def chains(self, session: str | None = None, peer: str | None = None) -> Iterable[Chain]:
        """The node's own chain and those of all sessions, as they were begun; or those of one session, or peer."""

    def entries(self, session: str | None = None, peer: str | None = None) -> Iterable[Entry]:
        """The entries of the sessions' chains, one chain after the other; the node's own is left out."""

    def facts(self, matter: Matter) -> Iterable[Fact]:
        """What the sessions' chains say of a matter."""

    def summary(self, tail: int) -> LedgerSummary:
        """What the sessions' chains hold, with so many of the last entries; other entries are not read."""

    def crossed(self, since: str) -> Sequence[Crossed]:
        """What was delivered from a moment on, UTC, ISO 8601, by direction, peer and kind, in the order of their names."""

    def head(self, session: str = "", peer: str = "") -> Head:
        """The end of a chain; of the node's own, if nothing is said."""


def opening_of(fact: Fact) -> Fact:
    """What the node's own chain says of the chain that begins with a fact."""
    return Fact("chain-opened", fact.session, peer=fact.peer)


def ending_of(fact: Fact, head: Head) -> Fact:
    """What the node's own chain says of the chain that ends with a fact, and with which head."""
    return Fact("chain-ended", fact.session, peer=fact.peer, body={"length": head.length, "hash": head.hash})


def loaded(chains: Iterable[Chain]) -> list[Chain]:
    """Chains with their entries read."""
    return [replace(chain, entries=list(chain.entries)) for chain in chains]


def bytes_by_kind(entries: Iterable[Entry], direction: Direction) -> dict[str, int]:
    """Bytes that were delivered in one direction, by egress kind, in the order of their names."""
    totals: dict[str, int] = {}
    for entry in entries:
        fact = entry.fact
        if fact.matter == "delivered" and fact.direction == direction and fact.kind is not None:
            totals[fact.kind] = totals.get(fact.kind, 0) + fact.size
    return dict(sorted(totals.items()))
