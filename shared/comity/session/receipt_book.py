"""A party's statements in one session: made, checked and recorded."""

from __future__ import annotations

from collections.abc import Mapping

from comity import faults
from comity.contract import Contract, Json, Membership
from comity.errors import ReceiptInvalid
from comity.ledger.ledger import Direction, Fact
from comity.ledger.receipts import SignedStatement, Signer, StatementKind, require_valid
from comity.store.store import Store


class ReceiptBook:
    """Signs this party's statements and checks the other's.

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
        self._made: dict[tuple[StatementKind, int], SignedStatement] = {}
        self._accepted: dict[tuple[StatementKind, int], SignedStatement] = {}
        for entry in store.entries(contract.session):
            if entry.fact.matter == "receipt" and entry.fact.peer == peer.party:
                signed = SignedStatement.from_json(entry.fact.body)
                known = self._made if entry.fact.direction == "sent" else self._accepted
                known[signed.statement.kind, signed.statement.round] = signed

    def sign(
        self, kind: StatementKind, round: int, subject: bytes, content: Mapping[str, Json] | None = None
    ) -> SignedStatement:
        """Makes and records a statement; the same one again is the first one again.

        Args:
            kind: What is stated.
            round: The round that it is about.
            subject: What it is about.
            content: What the subject is the digest of, where the ledger is to keep that too; see `subject_of`.

        Raises:
            ReceiptInvalid: This party has signed for something else in this round.
        """
        made = self._made.get((kind, round))
        if made is not None:
            if made.statement.subject != subject.hex():
                raise ReceiptInvalid(
                    f"a {kind} of round {round} was signed for something else",
                    expected=made.statement.subject,
                    received=subject.hex(),
                    action="ask for what was asked for first",
                )
            return made
        with self._store.transaction():
            session = self._contract.session
            signed = self._signer.state(kind, session, self._hash, round, subject.hex(), self._store.head())
            self._record(signed, "sent", content)
        self._made[kind, round] = signed
        faults.point("receipt")
        return signed

    def made(self, kind: StatementKind, round: int) -> SignedStatement | None:
        """A statement that this party has made; None where it has not."""
        return self._made.get((kind, round))

    def accept(
        self,
        signed: SignedStatement,
        kind: StatementKind,
        round: int,
        subject: bytes,
        content: Mapping[str, Json] | None = None,
    ) -> None:
        """Checks and records the other party's statement; see `sign`.

        Raises:
            ReceiptInvalid: It states something else, or its signature is not the other party's.
        """
        statement = signed.statement
        expected = (kind, self._peer.party, self._contract.session, self._hash, round, subject.hex())
        received = (
            statement.kind,
            statement.party,
            statement.session,
            statement.contract,
            statement.round,
            statement.subject,
        )
        if received != expected:
            names = ("kind", "party", "session", "contract", "round", "subject")
            name, wanted, came = next(
                each for each in zip(names, expected, received, strict=True) if each[1] != each[2]
            )
            raise ReceiptInvalid(
                f"the {kind} of round {round} states another {name}",
                expected=wanted,
                received=came,
                action="state what was offered or received in this session",
            )
        known = self._accepted.get((kind, round))
        if known == signed:
            return
        require_valid(signed, self._peer.receipt_key)
        longest = max((each.statement.head_length for each in self._accepted.values()), default=0)
        if known is not None or statement.head_length < longest:
            raise ReceiptInvalid(
                f"the {kind} of round {round} does not follow {self._peer.party}'s earlier statements",
                expected=f"the first {kind} of the round, over {longest} ledger entries or more",
                received=f"another, over {statement.head_length}",
                action="repeat the first statement as it was",
            )
        self._record(signed, "received", content)
        self._accepted[kind, round] = signed
        faults.point("receipt")

    def _record(self, signed: SignedStatement, direction: Direction, content: Mapping[str, Json] | None) -> None:
        statement = signed.statement
        peer = self._peer.party
        self._store.record(
            Fact(
                "receipt",
                statement.session,
                statement.round,
                peer,
                direction,
                None,
                statement.kind,
                0,
                signed.to_json() if content is None else signed.to_json() | {"content": content},
            )
        )


def record_opening(store: Store, contract: Contract, own: Membership, peer: Membership) -> None:
    """Records that a session was agreed: its contract's hash, its members and their keys."""
    members: list[Json] = [own.model_dump(mode="json"), peer.model_dump(mode="json")]
    body: dict[str, Json] = {"contract": contract.hash, "members": members}
    store.record(Fact("opened", contract.session, 0, peer.party, body=body))
