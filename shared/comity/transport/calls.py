"""Calls, each declared once: what a slice says of them in its `calls.py`, and from which every binding is derived.

A call is a method of the protocol's service, the role's part in it, and the blobs that go along. How its messages turn into
arguments and back follows from their fields: a message with a converter turns into what that makes of it, all others are
taken apart into their fields, in the order of the .proto; one that is `optional`, and not there, is None. What the ledger calls them stands in the .proto, too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from comity.errors import MalformedMessage, UnsupportedProtocol
from comity.session.codec import (
    release_from_proto,
    release_to_proto,
    statement_from_proto,
    statement_to_proto,
    tally_from_proto,
    tally_to_proto,
)
from comity.session.contexts import PeerContext
from comity.session.egress_rules import Rule, require_a_calls, require_fields, rule_of
from comity.tensors import Layout
from comity.transport.blobs import digest_in
from comity.wire.v1 import blobs_pb2, sessions_pb2

Converter = tuple[Callable[[Any], Message], Callable[[Any], Any]]
"""What makes a message of a value, and a value of a message, which it refuses where it does not fit."""

_CONVERTERS: dict[str, Converter] = {
    sessions_pb2.Tally.DESCRIPTOR.full_name: (tally_to_proto, tally_from_proto),
    blobs_pb2.BlobRef.DESCRIPTOR.full_name: (lambda digest: blobs_pb2.BlobRef(digest=digest), digest_in),
    sessions_pb2.SignedStatement.DESCRIPTOR.full_name: (statement_to_proto, statement_from_proto),
    sessions_pb2.Release.DESCRIPTOR.full_name: (release_to_proto, release_from_proto),
}


def _layout_of_task(context: PeerContext) -> Layout:
    layout: Layout = context.task.layout
    return layout


@dataclass(frozen=True, slots=True)
class BlobField:
    """A blob that goes along with a message.

    Attributes:
        kind: Its egress kind.
        path: Path of the field that names it.
        base: Path of the field that names the blob against which it may come; empty where it comes as it is.
        layout: What its tensors are, for one that is downloaded: those of the task, if nothing is said.
    """

    kind: str
    path: str
    base: str = ""
    layout: Callable[[PeerContext], Layout] = _layout_of_task

    def digest(self, message: Message) -> bytes | None:
        """The blob's digest; None where the message names none."""
        return _reference(message, self.path)

    def base_digest(self, message: Message) -> bytes | None:
        """The digest of its base; None where the message names none."""
        return _reference(message, self.base) if self.base else None


@dataclass(frozen=True, kw_only=True)
class Unary:
    """A call with one answer that is there soon.

    Attributes:
        method: Its name in the service.
        handle: What the role does, from the role, its context opposite the caller, and the request's arguments.
        uploads: Blobs that must be there before the request.
        downloads: Blobs that come with the answer, before it is given to the caller.
        delivers: Whether its caller has everything that was sent in the units that it names.
    """

    method: str
    handle: Callable[..., Any]
    uploads: tuple[BlobField, ...] = ()
    downloads: tuple[BlobField, ...] = ()
    delivers: bool = False


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A call with one answer that may take its time: no deadline of a small call applies to it.

    Attributes:
        method: Its name in the service; on the wire its answer is a stream of one.
        handle: What the role does; see `Unary`. It returns a future.
        uploads: Blobs that must be there before the request.
        downloads: Blobs that come with the answer, before it is given to the caller.
        cancels: Whether the future is cancelled when its caller goes, so that a role that has not begun with it need not; not
            where several callers may wait for one.
        metered: Whether it is one of many that are charged together: the role gets its `Wire` before its arguments, and the
            caller what both took on the wire.
    """

    method: str
    handle: Callable[..., Any]
    uploads: tuple[BlobField, ...] = ()
    downloads: tuple[BlobField, ...] = ()
    cancels: bool = False
    metered: bool = False


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Many calls, each with one answer, on one stream in both directions; answers come as they are there.

    Neither side holds a thread of the server. Of the calls of one stream `most` are under way at a time: until one is
    answered, no more is read, and the caller's transport holds it back. A caller who goes has those cancelled that the role
    has not begun with; one whose deadline has passed is given no answer, and those behind it do not notice.

    Attributes:
        method: Its name in the service, a stream in both directions.
        handle: What the role does; see `Waiting`. It returns a future.
        key: What tells the calls of one stream apart; of a request, and of its answer.
        most: Calls of one stream that are under way at a time.
        metered: See `Waiting`.
    """

    method: str
    handle: Callable[..., Any]
    key: Callable[[Any], Hashable]
    most: int = 64
    metered: bool = False
    uploads: tuple[BlobField, ...] = ()
    downloads: tuple[BlobField, ...] = ()
    cancels: bool = True


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A stream that a caller follows while it grows.

    Attributes:
        method: Its name in the service.
        handle: What the role does; see `Unary`. It returns the stream and the index of the first item that the caller needs.
        resume: Changes a request, once an item has come and was dealt with, into the one with which to go on after a cut.
        encode: The message of an item, from the role, the item and the one before it; by its converter where it is None.
        decode: The item of a message; by its converter where it is None.
        downloads: Blobs that come with an item, before it is given to the caller.
        offline: Arguments with which the caller would follow the stream of a round; None where it cannot be brought as a whole.
    """

    method: str
    handle: Callable[..., Any]
    resume: Callable[[Any, Any], None]
    encode: Callable[[Any, Any, Any], Message] | None = None
    decode: Callable[[Any], Any] | None = None
    downloads: tuple[BlobField, ...] = ()
    offline: Callable[[int], tuple[Any, ...]] | None = None
    uploads: tuple[BlobField, ...] = ()


Call = Unary | Waiting | Watch | Stream


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


class Service:
    """The calls of a protocol.

    Args:
        descriptor: The service in the protocol's .proto.
        calls: All of its methods, declared.
        client: Makes the port of a party that calls, from its context and a channel.
        converters: What makes values of the protocol's own messages, by class.
        terms: The message of the protocol's terms.

    Raises:
        UnsupportedProtocol: A call is not declared, or not in the .proto, or has a message that cannot be converted, or that
            has no egress rule.
    """

    def __init__(
        self,
        descriptor: ServiceDescriptor,
        calls: Sequence[Call],
        *,
        client: Callable[..., Any],
        converters: Mapping[type[Message], Converter] | None = None,
        terms: type[Message],
    ) -> None:
        self.name = descriptor.full_name
        self.client = client
        known = _CONVERTERS | {kind.DESCRIPTOR.full_name: each for kind, each in (converters or {}).items()}
        declared = {each.method: each for each in calls}
        there = descriptor.methods_by_name
        if len(declared) != len(calls) or set(declared) != set(there):
            different = sorted(set(declared) ^ set(there)) or ["a method twice"]
            raise _undeclared(f"the calls of {self.name} are not those of its .proto", sorted(there), different)
        self.methods = {name: _method(there[name], call, known) for name, call in declared.items()}
        self.terms = terms
        require_fields(_descriptor(terms), {"contract"})

    @property
    def watches(self) -> list[Method]:
        """The methods that are followed."""
        return [each for each in self.methods.values() if isinstance(each.call, Watch)]

    @property
    def is_offline(self) -> bool:
        """Whether its calls can be brought to the other party, and the answers back."""
        streams = any(isinstance(each.call, Stream) for each in self.methods.values())
        return not streams and all(
            isinstance(each.call, Watch) and each.call.offline is not None for each in self.watches
        )

    def kinds_sent(self, *, by_initiator: bool) -> set[str]:
        """The egress kinds that one side sends: in requests and uploads the initiator, in answers and downloads the acceptor."""
        found = {"contract"}
        for each in self.methods.values():
            rule = each.request_rule if by_initiator else each.answer_rule
            blobs = each.call.uploads if by_initiator else each.call.downloads
            found |= {rule.kind} if rule.is_recorded else set()
            found |= {blob.kind for blob in blobs}
        return found

    def method(self, call: Call) -> Method:
        """A declared call's method."""
        return self.methods[call.method]


def _method(descriptor: MethodDescriptor, call: Call, converters: Mapping[str, Converter]) -> Method:
    service = descriptor.containing_service.full_name
    is_both = descriptor.client_streaming and descriptor.server_streaming
    if is_both is not isinstance(call, Stream) or descriptor.server_streaming is isinstance(call, Unary):
        answers = "Waiting or Watch, for it answers in a stream" if descriptor.server_streaming else "Unary"
        kinds = ["Stream, for it is one in both directions" if is_both else answers]
        raise _undeclared(f"{descriptor.full_name} is declared as another kind of call", kinds, [type(call).__name__])
    request, answer = descriptor.input_type, descriptor.output_type
    require_a_calls(request)
    require_a_calls(answer)
    needed = [] if isinstance(call, Watch) and call.decode is not None else _convertible(answer, converters)
    for each in (*request.fields, *needed):
        if each.message_type is not None and each.message_type.full_name not in converters:
            expected = [f"a converter for {each.message_type.full_name}"]
            raise _undeclared(f"{each.full_name} has no codec", expected, ["none"])
    path = f"/{service}/{descriptor.name}"
    return Method(call, path, GetMessageClass(request), GetMessageClass(answer), converters)


def _convertible(answer: Descriptor, converters: Mapping[str, Converter]) -> Sequence[FieldDescriptor]:
    return [] if answer.full_name in converters else list(answer.fields)


def _descriptor(message: Any) -> Descriptor:
    found: Descriptor = message.DESCRIPTOR
    return found


def _is_required(each: Any) -> bool:
    inner = each.message_type
    return inner is not None and each.has_presence and each.containing_oneof is None


def _reference(message: Any, path: str) -> bytes | None:
    for name in path.split("."):
        if not message.HasField(name):
            return None
        message = getattr(message, name)
    return digest_in(message)


def _undeclared(what: str, expected: Sequence[str], received: Sequence[str]) -> UnsupportedProtocol:
    return UnsupportedProtocol(
        what,
        expected=", ".join(expected),
        received=", ".join(received),
        action="declare each call of the service once in the protocol's calls.py",
    )
