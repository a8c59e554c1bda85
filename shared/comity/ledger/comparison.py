"""Two parties' ledgers of the same sessions, side by side: what one says that the other denies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from comity.ledger.charges import Charge, rounds_charged, statement_of
from comity.ledger.exported import Line
from comity.ledger.ledger import GENESIS, Direction, Entry
from comity.ledger.receipts import Statement


@dataclass(frozen=True, slots=True)
class Difference:
    """Something on which two ledgers do not agree.

    Attributes:
        session: Session it belongs to.
        round: Round it belongs to.
        what: What it is about.
        ours: What our ledger says.
        theirs: What theirs says.
    """

    session: str
    round: int
    what: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        """The difference as one line."""
        return f"session {self.session}, round {self.round}: {self.what}: ours {self.ours}, theirs {self.theirs}"


def compare(ours: Iterable[Line], theirs: Iterable[Line], session: str | None = None) -> list[Difference]:
    """Compares two ledgers, each of which `verify` has found to hold.

    What one sent and the other received must be the same; a statement that one holds of the other must stand in the
    other's ledger, and quote a head of it; the same rounds must be charged. Ledgers of a session that is still on may
    differ by what is on its way.

    Args:
        ours: All entries of the one.
        theirs: All entries of the other.
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


def common_sessions(ours: Iterable[Line], theirs: Iterable[Line]) -> list[str]:
    """The sessions that `compare` compares when it is told none."""
    return _Book(ours).shared_with(_Book(theirs))


class _Book:
    """A party's ledger, by session.

    Args:
        lines: All of its entries.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self.hashes = {0: GENESIS}
        self.sessions: dict[str, list[Entry]] = {}
        self.is_whole = True
        for line in lines:
            self.hashes[line.index + 1] = line.hash
            if isinstance(line, Entry):
                self.sessions.setdefault(line.fact.session, []).append(line)
            else:
                self.is_whole = False
        self._owners = {name: _owner(entries) for name, entries in self.sessions.items()}

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
        return any(entry.fact.peer in parties for entry in self.sessions[session])

    def page(self, session: str, other: _Book) -> _Page:
        """What a session says of what was done with the other party."""
        entries = self.sessions.get(session, [])
        owner = other._owners.get(session, "")
        return _Page([each for each in entries if not owner or each.fact.peer == owner], self.hashes)


@dataclass(frozen=True, slots=True)
class _Page:
    entries: list[Entry]
    hashes: dict[int, str]

    def delivered(self, direction: Direction) -> dict[tuple[int, str, str], int]:
        """Size of what crossed, by round, kind and subject."""
        return {
            (fact.round, str(fact.kind), fact.subject): fact.size
            for fact in (entry.fact for entry in self.entries)
            if fact.matter == "delivered" and fact.direction == direction
        }

    def statements(self, direction: Direction) -> list[Statement]:
        """The statements that were sent, or received."""
        return [
            statement_of(entry).statement
            for entry in self.entries
            if entry.fact.matter == "receipt" and entry.fact.direction == direction
        ]


def _owner(entries: list[Entry]) -> str:
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
    mine, yours = ours.delivered(here), theirs.delivered(there)
    for place in dict.fromkeys([*mine, *yours]):
        if mine.get(place) != yours.get(place):
            round, kind, subject = place
            yield Difference(
                session, round, f"{kind} {subject}", _said(mine.get(place), here), _said(yours.get(place), there)
            )


def _said(size: int | None, direction: Direction) -> str:
    return f"not {direction}" if size is None else f"{direction} {size} bytes"


def _statements(session: str, holder: _Page, signer: _Page) -> Iterator[Difference]:
    """What the holder has signed by the signer."""
    made = set(signer.statements("sent"))
    for statement in holder.statements("received"):
        what = f"{statement.kind} by {statement.party}"
        chain = signer.hashes.get(statement.head_length)
        if chain != statement.head_hash:
            quoted = f"quotes {statement.head_hash[:16]}… at {statement.head_length} entries"
            has = f"has {chain[:16]}… there" if chain is not None else f"has {max(signer.hashes)} entries"
            yield Difference(session, statement.round, what, quoted, has)
        elif statement not in made:
            yield Difference(session, statement.round, what, "holds it", "has no such statement")


def _charges(session: str, ours: _Page, theirs: _Page) -> Iterator[Difference]:
    mine, yours = _charged(ours), _charged(theirs)
    for round in sorted(mine.keys() | yours.keys()):
        if mine.get(round) != yours.get(round):
            yield Difference(session, round, "the round", _charge(mine.get(round)), _charge(yours.get(round)))


def _charged(page: _Page) -> dict[int, str]:
    charges: list[Charge] = rounds_charged(page.entries)
    return {each.round: each.subject for each in charges}


def _charge(subject: str | None) -> str:
    return "not charged" if subject is None else f"charged for {subject[:16]}…"


def _swapped(difference: Difference) -> Difference:
    return Difference(difference.session, difference.round, difference.what, difference.theirs, difference.ours)
