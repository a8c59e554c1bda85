"""Contracts and memberships to protobuf and back.

Both directions go through the JSON mapping of protobuf, so that the fields stand in one place each: the pydantic class
and the message. The hash that both sides compare catches whatever one of them does not know.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import cast, get_args

from google.protobuf.json_format import MessageToDict, ParseDict, SerializeToJsonError
from google.protobuf.message import DecodeError, Message
from pydantic import ValidationError

from comity.contract import Contract, Membership, Release, Retention, Terms
from comity.errors import MalformedMessage
from comity.ledger.numbers import MOST_NUMBER, Numbers
from comity.ledger.receipts import SignedStatement, Statement, StatementKind
from comity.session.metering.tally import Tally
from comity.wire.v1 import sessions_pb2 as pb

_PROPOSE_AGAIN = "correct it and propose again"

LARGEST_CONTRACT = 2**20
"""Bytes of a contract: far more than the names of ten thousand classes, and too few to keep a node busy."""

_RETENTIONS: dict[int, Retention] = {
    pb.RETENTION_ROUND: "round",
    pb.RETENTION_SESSION: "session",
    pb.RETENTION_RESULT: "result",
}


def contract_to_proto(contract: Contract, terms: Message) -> pb.Contract:
    """Encodes a contract.

    Args:
        contract: The contract.
        terms: An empty message of the protocol's terms.
    """
    fields = contract.model_dump(mode="json")
    ParseDict(fields.pop("terms"), terms)
    message = ParseDict(fields, pb.Contract())
    message.terms.Pack(terms)
    return message


def contract_from_proto(message: pb.Contract, terms: Message, terms_type: type[Terms]) -> Contract:
    """Decodes a contract.

    Args:
        message: The message.
        terms: An empty message of the protocol's terms.
        terms_type: Their class.

    Raises:
        MalformedMessage: A field is missing or out of range, the terms are another protocol's, or it is too large.
    """
    require_size(message)
    expected = terms.DESCRIPTOR.full_name
    try:
        fits = message.terms.Unpack(terms)
    except DecodeError as error:
        raise MalformedMessage(
            "the contract's terms cannot be read", expected=expected, received="other bytes", action=_PROPOSE_AGAIN
        ) from error
    if not fits:
        raise MalformedMessage(
            "the contract has other terms",
            expected=expected,
            received=message.terms.type_url[:200] or "none",
            action=_PROPOSE_AGAIN,
        )
    bare = pb.Contract()
    bare.CopyFrom(message)
    bare.ClearField("terms")
    try:
        return Contract.model_validate(_fields(bare) | {"terms": terms_type.model_validate(_fields(terms))})
    except ValidationError as error:
        raise _malformed("the contract", error) from error
    except SerializeToJsonError as error:
        raise MalformedMessage(
            "the contract cannot be used: options of a model or of the task",
            expected="finite numbers",
            received=error,
            action=_PROPOSE_AGAIN,
        ) from error


def require_size(message: pb.Contract) -> None:
    """Checks that a contract is not so large that looking at it is work.

    Raises:
        MalformedMessage: It is.
    """
    if message.ByteSize() > LARGEST_CONTRACT:
        raise MalformedMessage(
            "the contract is too large",
            expected=f"at most {LARGEST_CONTRACT} bytes",
            received=message.ByteSize(),
            action="use fewer or shorter names",
        )


def membership_to_proto(membership: Membership) -> pb.Membership:
    """Encodes a membership."""
    return ParseDict(membership.model_dump(mode="json"), pb.Membership())


def membership_from_proto(message: pb.Membership) -> Membership:
    """Decodes a membership.

    Raises:
        MalformedMessage: A field is missing or out of range.
    """
    try:
        return Membership.model_validate(_fields(message))
    except ValidationError as error:
        raise _malformed("the membership", error) from error


def release_to_proto(release: Release) -> pb.Release:
    """Encodes what stands behind a release."""
    kept = next(number for number, name in _RETENTIONS.items() if name == release.kept)
    return pb.Release(samples=release.samples, kept=pb.Retention.ValueType(kept))


def release_from_proto(message: pb.Release) -> Release:
    """Decodes what stands behind a release.

    Raises:
        MalformedMessage: It does not say how long it is kept.
    """
    if message.kept not in _RETENTIONS:
        raise MalformedMessage(
            "the release does not say how long it is kept",
            expected=", ".join(_RETENTIONS.values()),
            received=message.kept,
            action="name one of these",
        )
    return Release(samples=message.samples, kept=_RETENTIONS[message.kept])


def statement_to_proto(signed: SignedStatement) -> pb.SignedStatement:
    """Encodes a signed statement."""
    return pb.SignedStatement(signature=bytes.fromhex(signed.signature), **asdict(signed.statement))


def statement_from_proto(message: pb.SignedStatement) -> SignedStatement:
    """Decodes a signed statement, which is still to be checked.

    Raises:
        MalformedMessage: It is of no known kind, or about nothing.
    """
    kind = message.kind
    if kind not in get_args(StatementKind):
        raise MalformedMessage(
            "the statement is of no known kind",
            expected=", ".join(get_args(StatementKind)),
            received=kind or "nothing",
            action="name one of these",
        )
    if not message.unit or not message.first or not message.count:
        raise MalformedMessage(
            "the statement is about nothing",
            expected="a unit, the first and how many",
            received=f"{message.count} of {message.unit or 'nothing'} from {message.first}",
            action="name what is asked for or delivered",
        )
    statement = Statement(
        cast(StatementKind, kind),
        message.party,
        message.session,
        message.contract,
        message.unit,
        message.first,
        message.count,
        message.subject,
        message.head_length,
        message.head_hash,
    )
    return SignedStatement(statement, message.signature.hex())


def tally_to_proto(tally: Tally) -> pb.Tally:
    """Encodes what is not settled yet."""
    ranges = [pb.NumberRange(first=first, last=last) for first, last in tally.numbers.ranges]
    return pb.Tally(first=tally.first, numbers=ranges, asked=tally.asked, answered=tally.answered)


def tally_from_proto(message: pb.Tally) -> Tally:
    """Decodes what is not settled yet.

    Raises:
        MalformedMessage: Its numbers are none.
    """
    numbers = Numbers.received([(each.first, each.last) for each in message.numbers])
    for name in ("first", "asked", "answered"):
        if getattr(message, name) >= MOST_NUMBER:
            raise MalformedMessage(
                f"a tally's {name} cannot be used", expected=f"below {MOST_NUMBER}", received=getattr(message, name)
            )
    return Tally(message.first, numbers, message.asked, message.answered)


def _fields(message: Message) -> dict[str, object]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _malformed(what: str, error: ValidationError) -> MalformedMessage:
    first = error.errors()[0]
    # Keys of a map are the peer's own.
    place = ".".join(str(part)[:40] for part in first["loc"]) or "its fields"
    received = "nothing" if first["type"] == "missing" else repr(first["input"])[:200]
    return MalformedMessage(
        f"{what} cannot be used: {place}", expected=first["msg"][:200], received=received, action=_PROPOSE_AGAIN
    )
