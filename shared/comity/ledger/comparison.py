"""Two parties' ledgers of the same sessions, side by side: what one says that the other denies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from comity.ledger.charges import charges_of, statement_of
from comity.ledger.ledger import GENESIS, OWN, WHOLE, Chain, ChainName, Direction, Entry, Matter, Units
from comity.ledger.receipts import Statement

_Crossing = tuple[Units, str, str]
"""What crossed: units, kind and subject."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something on which two ledgers do not agree.

    Attributes:
        session: Session it belongs to.
        units: What of the session's work it belongs to.
        what: What it is about.
        ours: What our ledger says.
        theirs: What theirs says.
    """

    session: str
    units: Units
    what: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        """The difference as one line."""
        where = f"session {self.session}" if self.units == WHOLE else f"session {self.session}, {self.units}"
        return f"{where}: {self.what}: ours {self.ours}, theirs {self.theirs}"


def compare(ours: Iterable[Chain], theirs: Iterable[Chain], session: str | None = None) -> list[Difference]:
    """Compares two ledgers, each of which `verify` has found to hold.

    What one sent and the other received must be the same; a statement that one holds of the other must stand in the
    other's ledger, and quote a head of its chain; the same units must be charged. Ledgers of a session that is active may
    differ by what is on its way.

    Args:
        ours: The chains of the one.
        theirs: The chains of the other.
        session: Compare this session; None for all that the two had with each other.

    Raises:
        LedgerBroken: A ledger's statements do not make sense in themselves.
    """
    left, right = _Book(ours), _Book(theirs)
    names = [session] if session is not None else left.shared_with(right)
    found: list[Difference] = []
    for name in names:
        one, other = left.page(name, right), right.page(name, left)
        found += _crossings(name, one, other, "sent", "received")
        found += _crossings(name, one, other, "received", "sent")
        found += _statements(name, one, other)
        found += [_swapped(each) for each in _statements(name, other, one)]
        found += _charges(name, one, other)
    return found


def common_sessions(ours: Iterable[Chain], theirs: Iterable[Chain]) -> list[str]:
    """The sessions that `compare` compares when it is told none."""
    return _Book(ours).shared_with(_Book(theirs))


class _Book:
    """A party's ledger, by session.

    Args:
        chains: Its chains.
    """

    def __init__(self, chains: Iterable[Chain]) -> None:
        self.is_whole = False
        self._chains: dict[ChainName, list[Entry]] = {}
        for chain in chains:
            if chain.name == OWN:
                self.is_whole = True
            else:
                self._chains[chain.name] = list(chain.entries)
        self.sessions = list(dict.fromkeys(name.session for name in self._chains))
        self._owners = {name: _owner(self._entries(name)) for name in self.sessions}

    def _entries(self, session: str) -> list[Entry]:
        return [entry for name, entries in self._chains.items() if name.session == session for entry in entries]

    def shared_with(self, other: _Book) -> list[str]:
        """Sessions that either had with the other."""
        names = [name for name in self.sessions if name in other.sessions]
        # One side alone may have it; that is a difference, unless the other side shows only some of its sessions.
        owners = {self._owners[name] for name in names}, {other._owners[name] for name in names}
        names += [name for name in self.sessions if name not in names and other.is_whole and self._met(name, owners[1])]
        names += [
            name for name in other.sessions if name not in names and self.is_whole and other._met(name, owners[0])
        ]
        return names

    def _met(self, session: str, parties: set[str]) -> bool:
        return any(name.session == session and name.peer in parties for name in self._chains)

    def page(self, session: str, other: _Book) -> _Page:
        """What a session says of what was done with the other party."""
        owner = other._owners.get(session, "")
        entries = self._chains.get(ChainName(session, owner), []) if owner else self._entries(session)
        return _Page(entries)


class _Page:
    """What a party's ledger says of one session with the other.

    Args:
        entries: The entries of the chain.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.hashes = [GENESIS, *(entry.hash for entry in entries)]

    def crossed(self, matter: Matter, direction: Direction) -> dict[_Crossing, int]:
        """Size of what was about to cross, or did, by units, kind and subject."""
        return {
            (fact.units, str(fact.kind), fact.subject): fact.size
            for fact in (entry.fact for entry in self.entries)
            if fact.matter == matter and fact.direction == direction
        }

    def statements(self, direction: Direction) -> list[Statement]:
        """The statements that were sent, or received."""
        return [
            statement_of(entry).statement
            for entry in self.entries
            if entry.fact.matter == "receipt" and entry.fact.direction == direction
        ]


def _owner(entries: Sequence[Entry]) -> str:
    """The party whose ledger it is; empty where a session does not tell."""
    for entry in entries:
        if entry.fact.matter == "receipt" and entry.fact.direction == "sent":
            return statement_of(entry).statement.party
    parties = set()
    for entry in entries:
        members = entry.fact.body.get("members")
        if entry.fact.matter == "opened" and isinstance(members, list):
            parties |= {str(each.get("party")) for each in members if isinstance(each, Mapping)}
    own = parties - {entry.fact.peer for entry in entries}
    return own.pop() if len(own) == 1 else ""


def _crossings(session: str, ours: _Page, theirs: _Page, here: Direction, there: Direction) -> Iterator[Difference]:
    mine, yours = (page.crossed("delivered", way) for page, way in ((ours, here), (theirs, there)))
    # Who was killed while something left has written down that it was about to, and the other says that it came.
    for page, way, left, came in ((ours, here, mine, yours), (theirs, there, yours, mine)):
        if way == "sent":
            left |= {
                place: size for place, size in page.crossed("intended", way).items() if place in came.keys() - left
            }
    for place in dict.fromkeys([*mine, *yours]):
        if mine.get(place) != yours.get(place):
            units, kind, subject = place
            yield Difference(
                session, units, f"{kind} {subject}", _said(mine.get(place), here), _said(yours.get(place), there)
            )


def _said(size: int | None, direction: Direction) -> str:
    return f"not {direction}" if size is None else f"{direction} {size} bytes"


def _statements(session: str, holder: _Page, signer: _Page) -> Iterator[Difference]:
    """What the holder has signed by the signer."""
    made = set(signer.statements("sent"))
    for statement in holder.statements("received"):
        what, length = f"{statement.kind} by {statement.party}", statement.head_length
        there = signer.hashes[length] if 0 <= length < len(signer.hashes) else None
        if there != statement.head_hash:
            quoted = f"quotes {statement.head_hash[:16]}… at {length} entries"
            has = f"has {there[:16]}… there" if there is not None else f"has {len(signer.hashes) - 1} entries"
            yield Difference(session, statement.units, what, quoted, has)
        elif statement not in made:
            yield Difference(session, statement.units, what, "holds it", "has no such statement")


def _charges(session: str, ours: _Page, theirs: _Page) -> Iterator[Difference]:
    mine, yours = _charged(ours), _charged(theirs)
    for units in sorted(mine.keys() | yours.keys(), key=lambda each: (each.unit, each.first, each.count)):
        if mine.get(units) != yours.get(units):
            yield Difference(session, units, "the charge", _charge(mine.get(units)), _charge(yours.get(units)))


def _charged(page: _Page) -> dict[Units, str]:
    return {each.units: each.subject for each in charges_of(page.entries)}


def _charge(subject: str | None) -> str:
    return "not charged" if subject is None else f"charged for {subject[:16]}…"


def _swapped(difference: Difference) -> Difference:
    return Difference(difference.session, difference.units, difference.what, difference.theirs, difference.ours)
