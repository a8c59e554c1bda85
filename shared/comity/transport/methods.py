"""Methods: a declared call with its messages, and how these turn into arguments and back.

That follows from their fields: a message with a converter turns into what that makes of it, all others are taken apart into
their fields, in the order of the .proto; one that is `optional`, and not there, is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from comity.errors import MalformedMessage
from comity.session.codec import (
    release_from_proto,
    release_to_proto,
    statement_from_proto,
    statement_to_proto,
    tally_from_proto,
    tally_to_proto,
)
from comity.session.egress_rules import Rule, rule_of
from comity.transport.blobs import digest_in
from comity.transport.calls import Call, Watch
from comity.wire.v1 import blobs_pb2, sessions_pb2

Converter = tuple[Callable[[Any], Message], Callable[[Any], Any]]
"""What makes a message of a value, and a value of a message, which it refuses where it does not fit."""

CONVERTERS: dict[str, Converter] = {
    sessions_pb2.Tally.DESCRIPTOR.full_name: (tally_to_proto, tally_from_proto),
    blobs_pb2.BlobRef.DESCRIPTOR.full_name: (lambda digest: blobs_pb2.BlobRef(digest=digest), digest_in),
    sessions_pb2.SignedStatement.DESCRIPTOR.full_name: (statement_to_proto, statement_from_proto),
    sessions_pb2.Release.DESCRIPTOR.full_name: (release_to_proto, release_from_proto),
}
"""Of messages that all protocols share, by name."""


@dataclass(frozen=True)
class Method:
    """A declared call with what the service says of it.

    Attributes:
        call: The call.
        path: Where it is called.
        request_type: Class of its request.
        answer_type: Class of its answer, or of an item of its stream.
    """

    call: Call
    path: str
    request_type: type[Message]
    answer_type: type[Message]
    _converters: Mapping[str, Converter] = field(repr=False)

    @property
    def request_rule(self) -> Rule:
        """How its request leaves."""
        return rule_of(self.request_type.DESCRIPTOR)

    @property
    def answer_rule(self) -> Rule:
        """How its answer leaves, or an item of its stream."""
        return rule_of(self.answer_type.DESCRIPTOR)

    @property
    def is_answered(self) -> bool:
        """Whether its answer says anything."""
        return bool(self.answer_type.DESCRIPTOR.fields)

    def encode_request(self, *arguments: Any) -> Message:
        """The request with these arguments."""
        return self._encode(self.request_type, arguments)

    def decode_request(self, message: Message) -> Sequence[Any]:
        """The arguments of a request.

        Raises:
            PeerMessageError: It does not fit.
        """
        return self._decode(message)

    def encode_answer(self, value: Any, role: Any = None, before: Any = None) -> Message:
        """The answer, or the message of an item.

        Args:
            value: What the role returned.
            role: The role, and the item before it, for those of a stream.
            before: See `role`.
        """
        if isinstance(self.call, Watch) and self.call.encode is not None:
            return self.call.encode(role, value, before)
        converter = self._converters.get(self.answer_type.DESCRIPTOR.full_name)
        if converter is not None:
            return converter[0](value)
        fields = len(self.answer_type.DESCRIPTOR.fields)
        return self._encode(self.answer_type, (value,) if fields == 1 else value if fields else ())

    def decode_answer(self, message: Message) -> Any:
        """What the role returned, or an item.

        Raises:
            PeerMessageError: It does not fit.
        """
        if isinstance(self.call, Watch) and self.call.decode is not None:
            require_complete(message)
            return self.call.decode(message)
        converter = self._converters.get(message.DESCRIPTOR.full_name)
        if converter is not None:
            return converter[1](message)
        values = self._decode(message)
        return values[0] if len(values) == 1 else tuple(values) or None

    def _encode(self, message: type[Message], values: Sequence[Any]) -> Message:
        fields, declared, empty = dict[str, Any](), message.DESCRIPTOR.fields, message()
        for number, value in zip(range(len(declared)), values, strict=True):
            each = declared[number]
            inner = each.message_type
            convert = None if inner is None else self._converters[inner.full_name][0]
            is_list = isinstance(value, list | tuple) and isinstance(getattr(empty, each.name), MutableSequence)
            if value is not None:
                fields[each.name] = _converted(convert, value, is_list=is_list)
        return message(**fields)

    def _decode(self, message: Message) -> list[Any]:
        require_complete(message)
        values: list[Any] = []
        for each in message.DESCRIPTOR.fields:
            value, inner = getattr(message, each.name), each.message_type
            if each.has_presence and not message.HasField(each.name):
                values.append(None)
                continue
            convert = None if inner is None else self._converters[inner.full_name][1]
            values.append(_converted(convert, value, is_list=isinstance(value, MutableSequence)))
        return values


def _converted(convert: Callable[[Any], Any] | None, value: Any, *, is_list: bool) -> Any:
    if is_list:
        return [each if convert is None else convert(each) for each in value]
    return value if convert is None else convert(value)


def require_complete(message: Message) -> None:
    """Checks that what a message is to hold is there.

    Raises:
        MalformedMessage: A field with a message is missing that is neither `optional` nor one of several.
    """
    for each in message.DESCRIPTOR.fields:
        if _is_required(each) and not message.HasField(each.name):
            raise MalformedMessage(
                f"{message.DESCRIPTOR.name} is incomplete",
                expected=each.name,
                received="nothing",
                action=f"send it with its {each.name}",
            )


def _is_required(each: Any) -> bool:
    inner = each.message_type
    return inner is not None and each.has_presence and each.containing_oneof is None
