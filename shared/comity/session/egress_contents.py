"""What a message holds that is about to leave, by the rules that stand in the protos."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from comity.errors import UnsupportedProtocol
from comity.session.egress_rules import (
    BLOB,
    MESSAGES,
    could_tell,
    fields_of,
    holding,
    missing,
    require_fields,
    rule_of,
)
from comity.wire.v1 import blobs_pb2, sessions_pb2


def carries(message: Message, kind: str) -> bool:
    """Whether a message holds something of an egress kind; one that never could counts as what it is called."""
    return not _could_hold(message.DESCRIPTOR, kind) or _holds(message, kind)


def releases_in(message: Message) -> Iterator[sessions_pb2.Release]:
    """What stands behind the things that a message releases."""
    if isinstance(message, sessions_pb2.Release):
        yield message
    elif _could_release(message.DESCRIPTOR):
        for _, part in _parts(message):
            yield from releases_in(part)


def _parts(message: Message) -> Iterator[tuple[FieldDescriptor, Message]]:
    """The messages that stand in one, each with its field; those of a map, and what is packed, unpacked.

    Raises:
        UnsupportedProtocol: What is packed is not known here.
    """
    for field, value in message.ListFields():
        inner = field.message_type
        if inner is None:
            continue
        parts: Any = [value] if isinstance(value, Message) else value
        if inner.GetOptions().map_entry:
            parts = value.values() if inner.fields_by_name["value"].message_type is not None else ()
        for part in parts:
            yield field, _unpacked(field, part) if isinstance(part, AnyMessage) else part


def _unpacked(field: FieldDescriptor, packed: AnyMessage) -> Message:
    try:
        kind = Default().FindMessageTypeByName(packed.TypeName())
        return GetMessageClass(kind).FromString(packed.value)
    except (KeyError, DecodeError) as error:
        raise missing(f"{field.full_name} holds an unknown message", "one with rules") from error


@cache
def _could_release(message: Descriptor) -> bool:
    release = sessions_pb2.Release.DESCRIPTOR
    return _could_pack(message) or any(each.message_type == release for each in fields_of(message))


def require_known(message: Message) -> None:
    """Checks that what is packed in a message has rules too.

    Raises:
        UnsupportedProtocol: It has none, or is not known here.
    """
    if not _could_pack(message.DESCRIPTOR):
        return
    for field, part in _parts(message):
        if field.message_type == AnyMessage.DESCRIPTOR:
            _require_packed(part.DESCRIPTOR, holding(field))
        require_known(part)


def require_unattached(message: Message) -> None:
    """Checks that no blob is attached to a message: it is, once both have passed the gate.

    Raises:
        UnsupportedProtocol: One is.
    """
    if not _could_hold(message.DESCRIPTOR, BLOB):
        return
    if isinstance(message, blobs_pb2.BlobRef) and message.content:
        raise UnsupportedProtocol(
            "a blob is attached to a message that has not passed the gate",
            expected="its digest alone",
            received=f"{len(message.content)} bytes",
            action="declare it as an upload or a download of the call",
        )
    for _, part in _parts(message):
        require_unattached(part)


@cache
def _require_packed(message: Descriptor, kind: str) -> None:
    if kind == MESSAGES:
        rule_of(message)
    else:
        require_fields(message, {kind})


@cache
def _could_pack(message: Descriptor) -> bool:
    return any(field.message_type is AnyMessage.DESCRIPTOR for field in fields_of(message))


@cache
def _could_hold(message: Descriptor, kind: str) -> bool:
    return any(holding(field) == kind for field in fields_of(message))


def _holds(message: Message, kind: str) -> bool:
    descriptor = message.DESCRIPTOR
    # A number that is 0 is not set, and says something all the same.
    if any(holding(field) == kind for field in descriptor.fields):
        return True
    for field, value in message.ListFields():
        if not holding(field) and could_tell(field):
            # Nothing that a message of kind `control` may say.
            return True
        if field.message_type is not None and _could_hold(field.message_type, kind):
            parts: Any = [value] if isinstance(value, Message) else value
            if field.message_type.GetOptions().map_entry or any(_holds(each, kind) for each in parts):
                return True
    return False
