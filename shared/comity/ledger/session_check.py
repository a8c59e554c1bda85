"""What must hold of a session's chain: what was agreed, what crossed, and what was stated, paid and earned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from comity.errors import ReceiptInvalid
from comity.ledger.chain_check import ChainCheck
from comity.ledger.charges import Charges, statement_of
from comity.ledger.ledger import ChainName, Entry, Head
from comity.ledger.receipts import Statement, require_valid, subject_of


@dataclass(slots=True)
class Opened:
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
class Known:
    """What the chains of a ledger said so far.

    Attributes:
        keys: Receipt keys by party, from elsewhere.
        sessions: What sessions were opened with.
        statements: Where each statement stands.
        charges: What is charged.
    """

    keys: Mapping[str, str]
    sessions: dict[str, Opened] = field(default_factory=dict)
    statements: dict[Statement, str] = field(default_factory=dict)
    charges: Charges = field(default_factory=Charges)


class SessionChainCheck(ChainCheck):
    """The chain of a session with a peer.

    Args:
        name: The chain.
        whole: What is known of the whole ledger.
    """

    def __init__(self, name: ChainName, whole: Known) -> None:
        super().__init__(name)
        self._whole = whole
        self._intended: set[tuple[object, ...]] = set()
        self._quoted = Head()
        """What the peer quoted last as the end of its chain."""

    def check_fact(self, entry: Entry) -> None:
        """See `ChainCheck.check_fact`."""
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
            case "privacy" | "judged" | "used":
                pass
            case _:
                raise self.broken(entry, "is about no known matter", received=f"{fact.matter}, {fact.direction}")

    def _open(self, entry: Entry) -> None:
        contract, keys = self._agreed(entry)
        opened = self._whole.sessions.setdefault(self.name.session, Opened(contract, {}))
        if opened.contract != contract:
            raise self.broken(
                entry, "opens the session with another contract", expected=opened.contract, received=contract
            )
        for party, key in keys.items():
            # A session with several peers is opened once with each.
            expected = self._whole.keys.get(party, opened.keys.setdefault(party, key))
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

    def _require_party(self, entry: Entry, statement: Statement, opened: Opened) -> None:
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
