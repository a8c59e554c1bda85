"""Whether a ledger holds: nothing edited, removed, swapped, replayed, forged, unpaid or unearned.

Offline, with the chains and their heads alone. What stands in nobody else's ledger can still be rewritten as a whole by
its owner, chains, heads and own signatures; `comity.ledger.comparison` finds that, against the other party's ledger.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from comity.errors import LedgerBroken, ReceiptInvalid
from comity.ledger.charges import Charges, broken, broken_chain, counted, statement_of
from comity.ledger.ledger import GENESIS, OWN, Chain, ChainName, Entry, Head
from comity.ledger.receipts import Statement, require_valid, subject_of

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a ledger that holds holds.

    Attributes:
        chains: Chains, without the node's own.
        entries: Entries of all chains.
        sessions: Sessions that were opened.
        statements: Signed statements.
        charged: What was bought and delivered, by unit.
    """

    chains: int
    entries: int
    sessions: int
    statements: int
    charged: Mapping[str, int]


def verify(chains: Iterable[Chain], *, keys: Mapping[str, str] | None = None, is_whole: bool = True) -> Verified:
    """Checks a ledger.

    Args:
        chains: All of its chains, the node's own first, or some.
        keys: Receipt keys, hexadecimal, that are known from elsewhere, by party; those that the sessions were opened
            with must be these.
        is_whole: Whether they must be all.

    Raises:
        LedgerBroken: It does not hold; the message begins with the first entry that is bad, as `ledger entry 7 of …`, or
            with the chain that is.
    """
    verifier = _Verifier(keys or {})
    for chain in chains:
        verifier.take(chain)
    verifier.require_all(is_whole=is_whole)
    return Verified(
        verifier.chains - (verifier.own is not None),
        verifier.entries,
        len(verifier.sessions),
        len(verifier.statements),
        counted(verifier.charges.charged),
    )


@dataclass(slots=True)
class _Opened:
    """What a session was opened with, and who its statements turned out to be by.

    Attributes:
        contract: Hash of its contract.
        keys: Receipt keys by party.
        own: The party whose ledger it is; empty until it states something.
    """

    contract: str
    keys: dict[str, str]
    own: str = ""


@dataclass(slots=True)
class _Registered:
    """What the node's own chain says of the others.

    Attributes:
        opened: Where each was begun.
        finals: The final heads of those that ended.
        seen: Those that turned out to be there.
    """

    opened: dict[ChainName, int] = field(default_factory=dict)
    finals: dict[ChainName, Head] = field(default_factory=dict)
    seen: set[ChainName] = field(default_factory=set)


class _Verifier:
    """Takes the chains one by one.

    Args:
        known: Receipt keys by party.
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        self.known = known
        self.chains = 0
        self.entries = 0
        self.own: _Registered | None = None
        self.sessions: dict[str, _Opened] = {}
        self.statements: dict[Statement, str] = {}
        """Where each stands."""
        self.charges = Charges()

    def take(self, chain: Chain) -> None:
        """Checks the next chain.

        Raises:
            LedgerBroken: It is bad, or an earlier one turns out to be.
        """
        checked: _OwnChainCheck | _SessionChainCheck
        if chain.name == OWN:
            if self.chains:
                raise broken_chain(OWN, "does not stand first")
            checked = _OwnChainCheck()
            self.own = checked.registered
        else:
            checked = _SessionChainCheck(chain.name, self)
        for entry in chain.entries:
            checked.take(entry)
        checked.require_head(chain.head)
        self.chains += 1
        self.entries += len(checked.hashes) - 1
        if chain.name != OWN:
            self._require_registered(chain.name, checked)

    def _require_registered(self, name: ChainName, chain: _ChainCheck) -> None:
        if len(chain.hashes) == 1:
            raise broken_chain(name, "is empty")
        if self.own is None:
            return
        if name not in self.own.opened:
            raise broken_chain(name, "was never opened", expected="an entry in the node's own chain", received="none")
        if name in self.own.seen:
            raise broken_chain(name, "stands there twice")
        self.own.seen.add(name)
        final, head = self.own.finals.get(name), Head(len(chain.hashes) - 1, chain.hashes[-1])
        if final is None and chain.ended:
            raise broken_chain(name, "ended", expected="a final head in the node's own chain", received="none")
        if final is not None and not (chain.ended and final == head):
            end = "that ended" if chain.ended else "that did not end"
            received = f"{head.length} {end}, at {head.hash[:16]}…"
            raise broken_chain(
                name,
                "does not end where the node's own chain says",
                expected=f"{final.length} entries that end in {str(final.hash)[:16]}…",
                received=received,
            )

    def require_all(self, *, is_whole: bool) -> None:
        """Checks that no chain is missing.

        Raises:
            LedgerBroken: One is.
        """
        if self.own is None:
            if is_whole:
                raise broken_chain(OWN, "is missing")
            return
        for name, index in self.own.opened.items():
            if name not in self.own.seen:
                raise broken_chain(name, "is missing", expected=f"what entry {index} of {OWN} opened", received="none")


class _ChainCheck(ABC):
    """Takes the entries of a chain one by one.

    Args:
        name: The chain.
    """

    def __init__(self, name: ChainName) -> None:
        self.name = name
        self.hashes = [GENESIS]
        """The chain's hash at each length."""
        self.ended = False
        self._time = _LONG_AGO
        self._said: dict[tuple[object, ...], int] = {}

    def take(self, entry: Entry) -> None:
        """Checks the next entry.

        Raises:
            LedgerBroken: It is bad, or an earlier one turns out to be.
        """
        index = len(self.hashes) - 1
        if entry.index != index:
            raise self.broken(index, "is missing", expected=f"index {index}", received=f"index {entry.index}")
        self._check_hash(entry)
        self._check_time(entry)
        fact = entry.fact
        if self.ended:
            raise self.broken(entry, "comes after the end of the session", received=fact.matter)
        units = fact.units
        said = (
            fact.matter,
            fact.session,
            units.unit,
            units.first,
            units.count,
            fact.peer,
            fact.direction,
            fact.kind,
            fact.subject,
        )
        earlier = self._said.setdefault(said, index)
        if earlier != index:
            raise self.broken(entry, f"says again what entry {earlier} says")
        self.check_fact(entry)
        self.hashes.append(entry.hash)

    @abstractmethod
    def check_fact(self, entry: Entry) -> None:
        """Checks what an entry says.

        Raises:
            LedgerBroken: It cannot be.
        """

    def require_head(self, head: Head) -> None:
        """Checks that the chain ends where it should.

        Raises:
            LedgerBroken: It does not.
        """
        length = len(self.hashes) - 1
        if length < head.length:
            raise self.broken(length, "is missing", expected=f"{head.length} entries", received=f"{length}")
        if length > head.length:
            raise self.broken(
                head.length, "is beyond the head", expected=f"{head.length} entries", received=f"{length}"
            )
        if self.hashes[-1] != head.hash:
            raise self.broken(
                max(length - 1, 0), "is not the one in the head", expected=head.hash, received=self.hashes[-1]
            )

    def broken(self, entry: Entry | int, what: str, **values: object) -> LedgerBroken:
        """The error that names an entry."""
        return broken(entry, what, chain=self.name, **values)

    def _check_hash(self, entry: Entry) -> None:
        try:
            computed = entry.computed_hash()
        except (TypeError, ValueError, RecursionError) as error:
            raise self.broken(entry, "holds what no entry can hold", received=error) from error
        if computed != entry.hash:
            raise self.broken(entry, "was changed", expected=f"hash {entry.hash}", received=computed)
        if entry.previous != self.hashes[-1]:
            raise self.broken(
                entry,
                "does not follow the entry before it",
                expected=f"previous {self.hashes[-1]}",
                received=entry.previous,
            )

    def _check_time(self, entry: Entry) -> None:
        try:
            time = datetime.fromisoformat(entry.time)
            if time < self._time:
                raise self.broken(
                    entry, "is before the entry before it", expected=f"{self._time} or later", received=entry.time
                )
        except (TypeError, ValueError) as error:
            raise self.broken(entry, "has no time", expected="ISO 8601 with a zone", received=entry.time) from error
        self._time = time


class _OwnChainCheck(_ChainCheck):
    """The node's own chain: which others there are, and how they ended."""

    def __init__(self) -> None:
        super().__init__(OWN)
        self.registered = _Registered()

    def check_fact(self, entry: Entry) -> None:
        """See `_ChainCheck.check_fact`."""
        fact = entry.fact
        name = ChainName(fact.session, fact.peer)
        if fact.matter == "chain-opened" and name != OWN:
            self.registered.opened[name] = entry.index
        elif fact.matter == "chain-ended" and name in self.registered.opened:
            body: Mapping[str, Any] = fact.body
            self.registered.finals[name] = Head(body.get("length", 0), body.get("hash", ""))
        else:
            raise self.broken(
                entry,
                "does not belong there",
                expected="that a chain was opened, or one of these ended",
                received=f"{fact.matter} of {name}",
            )


class _SessionChainCheck(_ChainCheck):
    """The chain of a session with a peer.

    Args:
        name: The chain.
        whole: What is known of the whole ledger.
    """

    def __init__(self, name: ChainName, whole: _Verifier) -> None:
        super().__init__(name)
        self._whole = whole
        self._intended: set[tuple[object, ...]] = set()
        self._quoted = Head()
        """What the peer quoted last as the end of its chain."""

    def check_fact(self, entry: Entry) -> None:
        """See `_ChainCheck.check_fact`."""
        fact, units = entry.fact, entry.fact.units
        if (fact.session, fact.peer) != self.name:
            raise self.broken(
                entry, "belongs to another chain", expected=self.name, received=ChainName(fact.session, fact.peer)
            )
        crossing = (units.unit, units.first, units.count, fact.kind, fact.subject)
        match fact.matter:
            case "delivered" if fact.direction == "received":
                pass
            case "delivered" if fact.direction == "sent":
                if crossing not in self._intended:
                    raise self.broken(
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
            case "ended":
                self.ended = True
            case "privacy" | "judged":
                pass
            case _:
                raise self.broken(entry, "is about no known matter", received=f"{fact.matter}, {fact.direction}")

    def _open(self, entry: Entry) -> None:
        contract, keys = self._agreed(entry)
        opened = self._whole.sessions.setdefault(self.name.session, _Opened(contract, {}))
        if opened.contract != contract:
            raise self.broken(
                entry, "opens the session with another contract", expected=opened.contract, received=contract
            )
        for party, key in keys.items():
            # A session with several peers is opened once with each.
            expected = self._whole.known.get(party, opened.keys.setdefault(party, key))
            if key != expected:
                raise self.broken(entry, f"names another key of {party}", expected=expected, received=key)

    def _agreed(self, entry: Entry) -> tuple[str, dict[str, str]]:
        """Contract hash and keys by party of an `opened` entry."""
        body = entry.fact.body
        contract, members = body.get("contract"), body.get("members")
        keys: dict[str, str] = {}
        for member in members if isinstance(members, list) else []:
            party, key = (
                (member.get("party"), member.get("receipt_key")) if isinstance(member, Mapping) else (None, None)
            )
            if not isinstance(party, str) or not isinstance(key, str):
                raise self.broken(entry, "opens a session with a member that has no name or no key", received=member)
            keys[party] = key
        if not isinstance(contract, str) or not keys:
            raise self.broken(entry, "opens a session", expected="a contract's hash and members", received=dict(body))
        return contract, keys

    def _check_receipt(self, entry: Entry) -> None:
        signed = statement_of(entry)
        statement = signed.statement
        opened = self._whole.sessions.get(self.name.session)
        if opened is None:
            raise self.broken(entry, "states something of a session that was not opened")
        self._require_place(entry, statement)
        if statement.contract != opened.contract:
            raise self.broken(entry, "quotes another contract", expected=opened.contract, received=statement.contract)
        here = f"entry {entry.index} of {self.name}"
        earlier = self._whole.statements.setdefault(statement, here)
        if earlier != here:
            raise self.broken(entry, f"replays the statement of {earlier}")
        self._require_party(entry, statement, opened)
        try:
            require_valid(signed, opened.keys[statement.party])
        except ReceiptInvalid as error:
            raise self.broken(
                entry, f"is not signed by {statement.party}", expected=error.expected, received=error.received
            ) from error
        self._require_content(entry, statement)
        if entry.fact.direction == "sent":
            self._check_own_head(entry, statement)
        else:
            self._check_quoted_head(entry, statement)
        self._whole.charges.add(entry, statement)

    def _require_place(self, entry: Entry, statement: Statement) -> None:
        """A statement stands where it belongs."""
        fact, units = entry.fact, entry.fact.units
        for name, wanted, stated in (
            ("session", fact.session, statement.session),
            ("unit", units.unit, statement.unit),
            ("range of units", units.first, statement.first),
            ("number of units", units.count, statement.count),
            ("kind", fact.subject, statement.kind),
        ):
            if wanted != stated:
                raise self.broken(entry, f"holds a statement of another {name}", expected=wanted, received=stated)

    def _require_content(self, entry: Entry, statement: Statement) -> None:
        """What is kept of a statement's content is what was signed."""
        content = entry.fact.body.get("content")
        if content is None:
            return
        digest = subject_of(content).hex() if isinstance(content, Mapping) else content
        if digest != statement.subject:
            raise self.broken(
                entry, "holds another content than was signed", expected=statement.subject, received=digest
            )

    def _require_party(self, entry: Entry, statement: Statement, opened: _Opened) -> None:
        """A statement is by a member of the session, on the right side."""
        fact, party = entry.fact, statement.party
        if fact.direction == "sent":
            opened.own = opened.own or party
        expected = {"sent": opened.own, "received": fact.peer}.get(fact.direction or "")
        if expected != party or (fact.direction == "sent" and party == fact.peer):
            raise self.broken(entry, f"holds a statement by {party}", expected=expected, received=fact.direction)
        if party not in opened.keys:
            raise self.broken(
                entry, f"holds a statement by {party}", expected=f"one of {', '.join(opened.keys)}", received=party
            )

    def _check_own_head(self, entry: Entry, statement: Statement) -> None:
        length = statement.head_length
        if not 0 <= length <= entry.index:
            raise self.broken(
                entry,
                "quotes a head of this chain that is not before it",
                expected=f"at most {entry.index} entries",
                received=length,
            )
        if statement.head_hash != self.hashes[length]:
            raise self.broken(
                entry,
                f"quotes another head of this chain at {length} entries",
                expected=self.hashes[length],
                received=statement.head_hash,
            )

    def _check_quoted_head(self, entry: Entry, statement: Statement) -> None:
        """A peer's chain grows."""
        quoted, last = Head(statement.head_length, statement.head_hash), self._quoted
        if quoted.length < last.length:
            raise self.broken(
                entry,
                f"quotes a chain of {statement.party} that shrank",
                expected=f"{last.length} entries or more",
                received=quoted.length,
            )
        if quoted.length == last.length and quoted.hash != last.hash:
            raise self.broken(
                entry,
                f"quotes a chain of {statement.party} that changed",
                expected=f"head {last.hash}",
                received=quoted.hash,
            )
        self._quoted = quoted
