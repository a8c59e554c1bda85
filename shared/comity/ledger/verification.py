"""Whether a ledger holds: nothing edited, removed, swapped, replayed, forged, unpaid or unearned.

Offline, with the ledger and its head alone. What stands in nobody else's ledger can still be rewritten as a whole by
its owner, chain, head and own signatures; `comity.ledger.comparison` finds that, against the other party's ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from comity.errors import ReceiptInvalid
from comity.ledger.charges import Charges, broken, rounds_charged, statement_of
from comity.ledger.exported import Line, Link
from comity.ledger.ledger import GENESIS, Entry, Fact, Head
from comity.ledger.receipts import Statement, require_valid, subject_of

__all__ = ["Verified", "rounds_charged", "verify"]

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a ledger that holds holds.

    Attributes:
        entries: Entries.
        sessions: Sessions that were opened.
        statements: Signed statements.
        rounds_charged: Rounds that were bought and delivered.
    """

    entries: int
    sessions: int
    statements: int
    rounds_charged: int


def verify(entries: Iterable[Line], head: Head, *, keys: Mapping[str, str] | None = None) -> Verified:
    """Checks a ledger.

    Args:
        entries: All of its entries, in order.
        head: What is kept of its end.
        keys: Receipt keys, hexadecimal, that are known from elsewhere, by party; those that the sessions were opened
            with must be these.

    Raises:
        LedgerBroken: It does not hold; the message begins with the first entry that is bad, as `ledger entry 7 …`.
    """
    verifier = _Verifier(keys or {})
    for entry in entries:
        verifier.take(entry)
    verifier.require_head(head)
    return Verified(
        len(verifier.hashes) - 1, len(verifier.sessions), len(verifier.statements), len(verifier.charges.charged)
    )


@dataclass(slots=True)
class _Opened:
    """What a session was opened with, and who its statements turned out to be by.

    Attributes:
        contract: Hash of its contract.
        keys: Receipt keys by party.
        own: The party whose ledger it is; empty until it states something.
        quoted: What each peer quoted last as the end of its chain.
    """

    contract: str
    keys: dict[str, str]
    own: str = ""
    quoted: dict[str, Head] = field(default_factory=dict)


class _Verifier:
    """Takes the entries one by one.

    Args:
        known: Receipt keys by party.
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known
        self.hashes = [GENESIS]
        """The chain's hash at each length."""
        self.sessions: dict[str, _Opened] = {}
        self.statements: dict[Statement, int] = {}
        """Where each stands."""
        self.charges = Charges()
        self._time = _LONG_AGO
        self._said: dict[tuple[object, ...], int] = {}
        self._intended: set[tuple[object, ...]] = set()

    def take(self, entry: Line) -> None:
        """Checks the next entry.

        Raises:
            LedgerBroken: It is bad, or an earlier one turns out to be.
        """
        index = len(self.hashes) - 1
        if entry.index != index:
            raise broken(index, "is missing", expected=f"index {index}", received=f"index {entry.index}")
        if not isinstance(entry, Link):
            self._check_chain(entry)
            self._check_time(entry)
            self._check_fact(entry)
        self.hashes.append(entry.hash)

    def require_head(self, head: Head) -> None:
        """Checks that the chain ends where it should.

        Raises:
            LedgerBroken: It does not.
        """
        length = len(self.hashes) - 1
        if length < head.length:
            raise broken(length, "is missing", expected=f"{head.length} entries", received=f"{length}")
        if length > head.length:
            raise broken(head.length, "is beyond the head", expected=f"{head.length} entries", received=f"{length}")
        if self.hashes[-1] != head.hash:
            raise broken(max(length - 1, 0), "is not the one in the head", expected=head.hash, received=self.hashes[-1])

    def _check_chain(self, entry: Entry) -> None:
        try:
            computed = entry.computed_hash()
        except (TypeError, ValueError, RecursionError) as error:
            raise broken(entry, "holds what no entry can hold", received=error) from error
        if computed != entry.hash:
            raise broken(entry, "was changed", expected=f"hash {entry.hash}", received=computed)
        if entry.previous != self.hashes[-1]:
            raise broken(
                entry,
                "does not follow the entry before it",
                expected=f"previous {self.hashes[-1]}",
                received=entry.previous,
            )

    def _check_time(self, entry: Entry) -> None:
        try:
            time = datetime.fromisoformat(entry.time)
            if time < self._time:
                raise broken(
                    entry, "is before the entry before it", expected=f"{self._time} or later", received=entry.time
                )
        except (TypeError, ValueError) as error:
            raise broken(entry, "has no time", expected="ISO 8601 with a zone", received=entry.time) from error
        self._time = time

    def _check_fact(self, entry: Entry) -> None:
        fact = entry.fact
        crossing = (fact.session, fact.round, fact.peer, fact.kind, fact.subject)
        earlier = self._said.setdefault((fact.matter, fact.direction, *crossing), entry.index)
        if earlier != entry.index:
            raise broken(entry, f"says again what entry {earlier} says")
        match fact.matter:
            case "delivered" if fact.direction == "received":
                pass
            case "delivered" if fact.direction == "sent":
                if crossing not in self._intended:
                    raise broken(
                        entry,
                        f"delivers {fact.kind} {fact.subject}",
                        expected="an intention before it",
                        received="none",
                    )
            case "intended" if fact.direction == "sent":
                self._intended.add(crossing)
            case "opened":
                self._open(entry)
            case "receipt":
                self._check_receipt(entry)
            case "ended" | "privacy":
                pass
            case _:
                raise broken(entry, "is about no known matter", received=f"{fact.matter}, {fact.direction}")

    def _open(self, entry: Entry) -> None:
        contract, keys = _agreed(entry)
        opened = self.sessions.setdefault(entry.fact.session, _Opened(contract, {}))
        if opened.contract != contract:
            raise broken(entry, "opens the session with another contract", expected=opened.contract, received=contract)
        for party, key in keys.items():
            # A session with several peers is opened once with each.
            expected = self._known.get(party, opened.keys.setdefault(party, key))
            if key != expected:
                raise broken(entry, f"names another key of {party}", expected=expected, received=key)

    def _check_receipt(self, entry: Entry) -> None:
        signed = statement_of(entry)
        statement = signed.statement
        opened = self.sessions.get(entry.fact.session)
        if opened is None:
            raise broken(entry, f"states something of session {entry.fact.session}, which was not opened")
        _require_place(entry, statement)
        if statement.contract != opened.contract:
            raise broken(entry, "quotes another contract", expected=opened.contract, received=statement.contract)
        earlier = self.statements.setdefault(statement, entry.index)
        if earlier != entry.index:
            raise broken(entry, f"replays the statement of entry {earlier}")
        _require_party(entry.fact, opened, entry, statement)
        try:
            require_valid(signed, opened.keys[statement.party])
        except ReceiptInvalid as error:
            raise broken(
                entry, f"is not signed by {statement.party}", expected=error.expected, received=error.received
            ) from error
        _require_content(entry, statement)
        if entry.fact.direction == "sent":
            self._check_own_head(entry, statement)
        else:
            _check_quoted_head(entry, statement, opened)
        self.charges.add(entry, statement)

    def _check_own_head(self, entry: Entry, statement: Statement) -> None:
        length = statement.head_length
        if not 0 <= length <= entry.index:
            raise broken(
                entry,
                "quotes a head of this ledger that is not before it",
                expected=f"at most {entry.index} entries",
                received=length,
            )
        if statement.head_hash != self.hashes[length]:
            raise broken(
                entry,
                f"quotes another head of this ledger at {length} entries",
                expected=self.hashes[length],
                received=statement.head_hash,
            )


def _agreed(entry: Entry) -> tuple[str, dict[str, str]]:
    """Contract hash and keys by party of an `opened` entry."""
    body = entry.fact.body
    contract, members = body.get("contract"), body.get("members")
    keys: dict[str, str] = {}
    for member in members if isinstance(members, list) else []:
        party, key = (member.get("party"), member.get("receipt_key")) if isinstance(member, Mapping) else (None, None)
        if not isinstance(party, str) or not isinstance(key, str):
            raise broken(entry, "opens a session with a member that has no name or no key", received=member)
        keys[party] = key
    if not isinstance(contract, str) or not keys:
        raise broken(entry, "opens a session", expected="a contract's hash and members", received=dict(body))
    return contract, keys


def _require_place(entry: Entry, statement: Statement) -> None:
    """A statement stands where it belongs."""
    fact = entry.fact
    expected = (fact.session, fact.round, fact.subject)
    for name, wanted, stated in zip(
        ("session", "round", "kind"), expected, (statement.session, statement.round, statement.kind), strict=True
    ):
        if wanted != stated:
            raise broken(entry, f"holds a statement of another {name}", expected=wanted, received=stated)


def _require_content(entry: Entry, statement: Statement) -> None:
    """What is kept of a statement's content is what was signed."""
    content = entry.fact.body.get("content")
    if content is None:
        return
    digest = subject_of(content).hex() if isinstance(content, Mapping) else content
    if digest != statement.subject:
        raise broken(entry, "holds another content than was signed", expected=statement.subject, received=digest)


def _require_party(fact: Fact, opened: _Opened, entry: Entry, statement: Statement) -> None:
    """A statement is by a member of the session, on the right side."""
    party = statement.party
    if fact.direction == "sent":
        opened.own = opened.own or party
    expected = {"sent": opened.own, "received": fact.peer}.get(fact.direction or "")
    if expected != party or (fact.direction == "sent" and party == fact.peer):
        raise broken(entry, f"holds a statement by {party}", expected=expected, received=fact.direction)
    if party not in opened.keys:
        raise broken(
            entry, f"holds a statement by {party}", expected=f"one of {', '.join(opened.keys)}", received=party
        )


def _check_quoted_head(entry: Entry, statement: Statement, opened: _Opened) -> None:
    """A peer's chain grows."""
    quoted = Head(statement.head_length, statement.head_hash)
    last = opened.quoted.get(statement.party, Head())
    if quoted.length < last.length:
        raise broken(
            entry,
            f"quotes a ledger of {statement.party} that shrank",
            expected=f"{last.length} entries or more",
            received=quoted.length,
        )
    if quoted.length == last.length and quoted.hash != last.hash:
        raise broken(
            entry,
            f"quotes a ledger of {statement.party} that changed",
            expected=f"head {last.hash}",
            received=quoted.hash,
        )
    opened.quoted[statement.party] = quoted
