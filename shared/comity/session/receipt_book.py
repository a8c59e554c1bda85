"""A party's statements in one session with one peer: made, checked and recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from comity import faults
from comity.contract import Contract, Json, Membership
from comity.errors import ReceiptInvalid
from comity.ledger.charges import Ranges
from comity.ledger.ledger import Direction, Fact, Units
from comity.ledger.receipts import SignedStatement, Signer, StatementKind, require_valid, subject_of
from comity.store.store import Store


class ReceiptBook:
    """Signs this party's statements and checks the other's.

    A statement is about units that follow each other: a round, or requests 101 to 200. No two of a kind are about the same.

    Args:
        signer: This party's key.
        store: Where statements are recorded.
        contract: The session's contract.
        peer: The other party's part in it, with its key.
    """

    def __init__(self, signer: Signer, store: Store, contract: Contract, peer: Membership) -> None:
        self._signer = signer
        self._store = store
        self._contract = contract
        self._hash = contract.hash
        self._peer = peer
        self._made = _Statements()
        self._accepted = _Statements()
        self._untold: list[SignedStatement] = []
        for entry in store.entries(contract.session, peer.party):
            if entry.fact.matter == "receipt":
                self._add(SignedStatement.from_json(entry.fact.body), entry.fact.direction)

    def sign(
        self, kind: StatementKind, units: Units, subject: bytes, content: Mapping[str, Json] | None = None
    ) -> SignedStatement:
        """Makes and records a statement; the same one again is the first one again.

        Args:
            kind: What is stated.
            units: What it is about: `in_round(3)`, or `Units("request", 101, 100)`.
            subject: Digest of what is stated of them, as the protocol defines it.
            content: What the subject is the digest of, where the ledger is to keep that too; see `subject_of`.

        Raises:
            ReceiptInvalid: This party has signed for something else, or for some of these units with others.
        """
        made = self._made.find(kind, units)
        if made is not None:
            if made.statement.units != units or made.statement.subject != subject.hex():
                raise ReceiptInvalid(
                    f"a {kind} of {units} was signed for something else",
                    expected=f"{made.statement.units}, {made.statement.subject}",
                    received=f"{units}, {subject.hex()}",
                    action="ask for what was asked for first",
                )
            return made
        with self._store.transaction():
            session = self._contract.session
            head = self._store.head(session, self._peer.party)
            signed = self._signer.state(kind, session, self._hash, units, subject.hex(), head)
            self._record(signed, "sent", content)
        self._add(signed, "sent")
        faults.point("receipt")
        return signed

    def made(self, kind: StatementKind, units: Units) -> SignedStatement | None:
        """A statement that this party has made of these units; None where it has not."""
        found = self._made.find(kind, units)
        return found if found is not None and found.statement.units == units else None

    def accepted(self, kind: StatementKind, units: Units) -> SignedStatement | None:
        """A statement of the other party that was accepted; None where there is none."""
        return self._accepted.find(kind, units)

    def accept(
        self,
        signed: SignedStatement,
        kind: StatementKind,
        units: Units,
        subject: bytes,
        content: Mapping[str, Json] | None = None,
    ) -> None:
        """Checks and records the other party's statement; see `sign`.

        Raises:
            ReceiptInvalid: It states something else, or its signature is not the other party's.
        """
        self._require_stated(signed, kind, units, subject)
        known = self._accepted.find(kind, units)
        if known == signed:
            return
        require_valid(signed, self._peer.receipt_key)
        length = signed.statement.head_length
        if known is not None or length < self._accepted.longest:
            raise ReceiptInvalid(
                f"the {kind} of {units} does not follow {self._peer.party}'s earlier statements",
                expected=f"the first {kind} of them, over {self._accepted.longest} ledger entries or more",
                received=f"another, over {length}",
                action="repeat the first statement as it was",
            )
        self._record(signed, "received", content)
        self._add(signed, "received")
        faults.point("receipt")

    def withdraw(self, units: Units) -> SignedStatement:
        """Goes on without units, asked for or not: they are not charged, and cannot be asked for again.

        The other party is to be told when it is back: `untold` is sent with what it is asked for next.

        Raises:
            ReceiptInvalid: The other party's receipt for them is here.
        """
        if self._accepted.find("receipt", units) is not None:
            raise ReceiptInvalid(
                f"{units} cannot be withdrawn", expected="units without a receipt", received="a receipt for them"
            )
        return self.sign("withdrawal", units, _withdrawn(units))

    def is_withdrawn(self, units: Units) -> bool:
        """Whether this party has gone on without units."""
        return self.made("withdrawal", units) is not None

    @property
    def untold(self) -> list[SignedStatement]:
        """This party's withdrawals since the other's last receipt, which it may not know of."""
        return [*self._untold]

    def accept_withdrawals(self, withdrawals: Sequence[SignedStatement]) -> None:
        """Checks and records what the other party has gone on without.

        Raises:
            ReceiptInvalid: One is none, or is of units of which the other party has said that it has them.
        """
        for signed in withdrawals:
            units = signed.statement.units
            if self._accepted.find("acknowledgement", units) is not None:
                raise ReceiptInvalid(
                    f"{units} cannot be withdrawn",
                    expected="units that did not arrive",
                    received="a withdrawal of what was acknowledged",
                    action="go on with the next",
                )
            self.accept(signed, "withdrawal", units, _withdrawn(units))

    def _add(self, signed: SignedStatement, direction: Direction | None) -> None:
        kind = signed.statement.kind
        if direction == "sent":
            self._made.add(signed)
            if kind == "withdrawal":
                self._untold.append(signed)
        else:
            self._accepted.add(signed)
            if kind == "receipt":
                self._untold.clear()

    def _require_stated(self, signed: SignedStatement, kind: StatementKind, units: Units, subject: bytes) -> None:
        statement = signed.statement
        for name, expected, received in (
            ("kind", kind, statement.kind),
            ("party", self._peer.party, statement.party),
            ("session", self._contract.session, statement.session),
            ("contract", self._hash, statement.contract),
            ("range of units", units, statement.units),
            ("subject", subject.hex(), statement.subject),
        ):
            if expected != received:
                raise ReceiptInvalid(
                    f"the {kind} of {units} states another {name}",
                    expected=expected,
                    received=received,
                    action="state what was offered or received in this session",
                )

    def _record(self, signed: SignedStatement, direction: Direction, content: Mapping[str, Json] | None) -> None:
        statement = signed.statement
        body = signed.to_json() if content is None else signed.to_json() | {"content": content}
        place = (statement.session, statement.units, self._peer.party, direction, None, statement.kind)
        self._store.record(Fact("receipt", *place, body=body))


def _withdrawn(units: Units) -> bytes:
    """What a withdrawal states."""
    return subject_of({"withdrawn": [units.unit, units.first, units.count]})


class _Statements:
    """One party's statements.

    Attributes:
        longest: The longest chain that one of them quotes, in entries.
    """

    def __init__(self) -> None:
        self.longest = 0
        self._ranges: dict[tuple[StatementKind, str], Ranges] = {}
        self._statements: dict[tuple[StatementKind, Units], SignedStatement] = {}

    def add(self, signed: SignedStatement) -> None:
        """Adds a statement about units that none of its kind is about."""
        statement = signed.statement
        self.longest = max(self.longest, statement.head_length)
        self._ranges.setdefault((statement.kind, statement.unit), Ranges()).add(statement.units)
        self._statements[statement.kind, statement.units] = signed

    def find(self, kind: StatementKind, units: Units) -> SignedStatement | None:
        """The statement about some of these units; None where there is none."""
        ranges = self._ranges.get((kind, units.unit))
        known = None if ranges is None else ranges.overlapping(units)
        return None if known is None else self._statements[kind, known]


def record_opening(store: Store, contract: Contract, own: Membership, peer: Membership) -> None:
    """Records that a session was agreed: its contract's hash, its members and their keys."""
    members: list[Json] = [own.model_dump(mode="json"), peer.model_dump(mode="json")]
    body: dict[str, Json] = {"contract": contract.hash, "members": members}
    store.record(Fact("opened", contract.session, peer=peer.party, body=body))
