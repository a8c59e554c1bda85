"""Signed statements: what one party has of the other's word.

Units, rounds or requests, are charged when the party that helps durably has all that was offered for them. The party that
asks signs the request, the party that helps the receipt; each quotes the end of its own chain of the session with the
other, so that neither can rewrite its ledger unseen, and neither learns of the other's other sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from comity.contract import Json, Membership, canonical
from comity.errors import ReceiptInvalid
from comity.ledger.keys import ReceiptKey, SeedKey
from comity.ledger.ledger import Head, Units

StatementKind = Literal["request", "receipt", "statement", "acknowledgement", "withdrawal"]
"""The one party asks for units; the other has what is needed for them, and later states the results; the first has
that. Or the first goes on without them, because the other was away: they are then not charged."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a party states.

    Attributes:
        kind: What it states.
        party: Who states it.
        session: Session it belongs to.
        contract: Hash of the contract.
        unit: What is counted, as the protocol calls it: "round", "request".
        first: The first of the units that it is about.
        count: How many they are.
        subject: BLAKE3 (hexadecimal) over what it is about, as the protocol defines it: an offer, a result.
        head_length: Entries in the signer's chain of this session and peer at that moment.
        head_hash: Hash of the last of them.
    """

    kind: StatementKind
    party: str
    session: str
    contract: str
    unit: str
    first: int
    count: int
    subject: str
    head_length: int
    head_hash: str

    @property
    def units(self) -> Units:
        """What it is about."""
        return Units(self.unit, self.first, self.count)


def subject_of(content: Mapping[str, Json]) -> bytes:
    """BLAKE3 over the canonical form of what is stated: 32 bytes."""
    return blake3(canonical(content)).digest()


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement with its signature.

    Attributes:
        statement: What is stated.
        signature: Ed25519 over its canonical form, hexadecimal.
    """

    statement: Statement
    signature: str

    def to_json(self) -> dict[str, Json]:
        """The statement as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> SignedStatement:
        """Reads what `to_json` gave.

        Raises:
            ReceiptInvalid: It is something else.
        """
        try:
            return cls(Statement(**value["statement"]), str(value["signature"]))  # type: ignore[arg-type]
        except (KeyError, TypeError) as error:
            raise ReceiptInvalid("a receipt cannot be read", received=value) from error


class Signer:
    """Signs what a party states.

    Args:
        key: Its key.
        party: The party.
    """

    def __init__(self, key: ReceiptKey, party: str) -> None:
        self._key = key
        self._party = party

    @classmethod
    def from_seed(cls, seed: bytes, party: str) -> Signer:
        """The signer whose key follows from 32 bytes."""
        return cls(SeedKey(seed), party)

    @property
    def public_key(self) -> str:
        """The public key, hexadecimal."""
        return self._key.public_key

    def state(
        self, kind: StatementKind, session: str, contract: str, units: Units, subject: str, head: Head
    ) -> SignedStatement:
        """Signs a statement."""
        about = (units.unit, units.first, units.count, subject)
        statement = Statement(kind, self._party, session, contract, *about, head.length, head.hash)
        return SignedStatement(statement, self._key.sign(canonical(asdict(statement))).hex())

    def sign_membership(self, contract: str, membership: Membership) -> bytes:
        """Signs this party's part in a contract, given by its hash."""
        return self._key.sign(_membership_bytes(contract, membership))

    def sign_bundle(self, contents: bytes) -> bytes:
        """Signs what goes offline to another party."""
        return self._key.sign(_PARCEL + contents)


_PARCEL = b"comity bundle: "
"""Nothing else that a party signs begins so."""


def require_bundle(contents: bytes, signature: bytes, party: str, key: str) -> None:
    """Checks that what came offline is a party's.

    Args:
        contents: The bytes that are signed.
        signature: The signature.
        party: Party that it names.
        key: The receipt key that this party is known by, hexadecimal.

    Raises:
        ReceiptInvalid: It is not, or was changed on the way.
    """
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, _PARCEL + contents)
    except (InvalidSignature, ValueError) as error:
        raise ReceiptInvalid(
            f"the bundle is not {party}'s as it was made",
            expected=f"a signature by key {key[:16]}…",
            received=f"{signature.hex()[:16] or 'nothing'}…",
            action=f"have it copied again; if {party} made a new key, take its new card with comity trust add --replace",
        ) from error


def require_member(contract: str, membership: Membership, signature: bytes) -> None:
    """Checks that a membership is signed by the key that it names.

    Raises:
        ReceiptInvalid: It is not.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(membership.receipt_key))
        key.verify(signature, _membership_bytes(contract, membership))
    except (InvalidSignature, ValueError) as error:
        raise ReceiptInvalid(
            f"{membership.party}'s part in the contract is not signed",
            expected=f"a signature by key {membership.receipt_key[:16]}…",
            received=f"{signature.hex()[:16] or 'nothing'}…",
            action="sign it with the key that it names",
        ) from error


def require_pinned(membership: Membership, key: str | None) -> None:
    """Checks that a membership names the receipt key that its party is known by.

    Args:
        membership: The party's part in a contract.
        key: Key on the card of this party, hexadecimal; None where nothing is known of it.

    Raises:
        ReceiptInvalid: It names another.
    """
    if key is not None and membership.receipt_key != key:
        raise ReceiptInvalid(
            f"{membership.party} signs with another key than the one on its card",
            expected=f"key {key[:16]}…",
            received=f"key {membership.receipt_key[:16]}…",
            action=f"if {membership.party} made a new key, take its new card with comity trust add --replace",
        )


def _membership_bytes(contract: str, membership: Membership) -> bytes:
    return canonical([contract, membership.model_dump(mode="json")])


def require_valid(signed: SignedStatement, key: str) -> None:
    """Checks a signature.

    Args:
        signed: The statement.
        key: Public key of the party that it names, hexadecimal.

    Raises:
        ReceiptInvalid: The signature is not that party's, or not of this statement.
    """
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(signed.signature), canonical(asdict(signed.statement)))
    except (InvalidSignature, ValueError) as error:
        statement = signed.statement
        raise ReceiptInvalid(
            f"the {statement.kind} of {statement.units} is not signed by {statement.party}",
            expected=f"a signature by key {key[:16]}…",
            received=f"{signed.signature[:16]}…",
            action="sign it with the key of the session's membership",
        ) from error
