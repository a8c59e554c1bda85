"""The calls of a protocol together, as they are declared and as its .proto has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from comity.errors import UnsupportedProtocol
from comity.session.egress_rules import require_a_calls, require_fields
from comity.transport.calls import Call, Stream, Unary, Watch
from comity.transport.methods import CONVERTERS, Converter, Method


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
        known = CONVERTERS | {kind.DESCRIPTOR.full_name: each for kind, each in (converters or {}).items()}
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


def _undeclared(what: str, expected: Sequence[str], received: Sequence[str]) -> UnsupportedProtocol:
    return UnsupportedProtocol(
        what,
        expected=", ".join(expected),
        received=", ".join(received),
        action="declare each call of the service once in the protocol's calls.py",
    )
