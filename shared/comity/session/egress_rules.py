"""What may leave a node: the rules that stand in the protos, read from there.

`egress.proto` says what a rule is. They are read once for each kind of message, when a protocol declares its calls, so that
a message without a rule, or with a field that could carry data and has none, cannot even be declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from comity.errors import UnsupportedProtocol
from comity.ledger.ledger import ROUND, WHOLE, Units
from comity.wire.v1 import blobs_pb2, egress_pb2

CONTROL, STATEMENT, BLOB, MESSAGES = "control", "statement", "blob", "messages"
UNRECORDED = frozenset({CONTROL, STATEMENT, BLOB, MESSAGES})
"""Kinds of messages that hold nothing that must be agreed on, or nothing that did not pass by itself."""
_REFERENCES = frozenset({"identifier", "signature"})
_ATTACHED = blobs_pb2.BlobRef.DESCRIPTOR.fields_by_name["content"].full_name
"""The one field in which a blob travels with a message that names it."""
_CARRIERS = {FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}
_GOOGLE = "google.protobuf."
_CLOSED = {"Empty", "Timestamp", "Duration", "BoolValue", "Int32Value", "Int64Value", "UInt32Value", "UInt64Value"}
"""Of protobuf's own messages those that have room for a number and nothing else."""
_PATH = re.compile(r"\{([\w.]+)\}")

METADATA = {
    "comity-party": "identifier",
    "comity-session": "identifier",
    "comity-contract": "identifier",
    "comity-kind": "identifier",
    "comity-unit": "identifier",
    "comity-first": "identifier",
    "comity-count": "identifier",
    "comity-index": "identifier",
    "comity-digest": "identifier",
    "comity-encoding": "identifier",
    "comity-base": "identifier",
    "comity-size": "identifier",
    "comity-offset": "identifier",
}
"""What may travel beside a call; a test looks at all that does."""

ERROR_PARTS = {"what": "text", "expected": "text", "received": "text", "action": "text"}
"""What of an error may cross, beside its class. `text` is this program's own words with names, counts and settings in them:
what an error says was received came from the peer, and what it says was expected stands in the contract. It is cut to a few
hundred letters, and an error that is none of the tree crosses with none of its words."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a message passes the gate.

    Attributes:
        kind: Egress kind, or one of `UNRECORDED`.
        subject: What it is called in ledgers, with fields in braces.
        unit: What its units are.
        first: Path of the field with the first of them; empty for the field that is called as the unit is.
        count: Path of the field with how many they are; empty for one.
        is_batched: Whether it is recorded together with others; see `EgressGate.announce`.
    """

    kind: str
    subject: str
    unit: str
    first: str
    count: str
    is_batched: bool = False

    @property
    def is_recorded(self) -> bool:
        """Whether contract and policy are asked, and the ledger is told."""
        return self.kind not in UNRECORDED

    def units_of(self, message: Message, request: Message | None = None) -> Units:
        """What a message belongs to, or its request, where it says nothing; the session as a whole where neither does."""
        if self.first:
            first = int(_found(self.first, message, request))
            count = int(_found(self.count, message, request)) if self.count else 1
            return Units(self.unit, first, count) if first else WHOLE
        for each in (message, request):
            if each is not None and self.unit in each.DESCRIPTOR.fields_by_name:
                number = int(_value(each, self.unit))
                return Units(self.unit, number, 1) if number else WHOLE
        return WHOLE

    def subject_of(self, message: Message, request: Message | None = None) -> str:
        """What a message is called in ledgers."""

        def filled(match: re.Match[str]) -> str:
            value = _found(match[1], message, request)
            return value.hex() if isinstance(value, bytes) else str(value)

        return _PATH.sub(filled, self.subject)


@cache
def rule_of(message: Descriptor) -> Rule:
    """The rule of a kind of message, once it and all that the message holds were looked at.

    Raises:
        UnsupportedProtocol: It has none, or a field that could carry data has none.
    """
    options = message.GetOptions()
    name = message.full_name
    if not options.HasExtension(egress_pb2.egress):
        raise missing(
            f"{name} has no egress rule",
            'option (comity.wire.v1.egress) = { kind: "…", subject: "…" }, or { kind: "control" }',
        )
    found = options.Extensions[egress_pb2.egress]
    rule = Rule(found.kind, found.subject, found.unit or ROUND, found.first, found.count, found.batched)
    if not rule.kind or (rule.is_recorded and not rule.subject and not rule.is_batched):
        raise missing(f"the egress rule of {name} is incomplete", "a kind and a subject")
    if rule.is_batched and not (rule.is_recorded and rule.first):
        raise missing(f"{name} cannot be recorded with others", "an egress kind, and a path to its first unit")
    if rule.kind == MESSAGES:
        _require_messages(message)
    else:
        kinds = {rule.kind} if rule.is_recorded or rule.kind == BLOB else set()
        require_fields(message, kinds, strict=rule.kind in {CONTROL, STATEMENT})
    for path in (*_PATH.findall(rule.subject), *filter(None, (rule.first, rule.count))):
        if not path.startswith("request."):
            _field(message, path)
    return rule


def require_fields(message: Descriptor, kinds: set[str], *, strict: bool = False) -> None:
    """Checks that every field that could carry data has a rule, in a message and in all that it holds.

    Args:
        message: The kind of message.
        kinds: Egress kinds that they may be of.
        strict: Whether text needs a rule too.

    Raises:
        UnsupportedProtocol: One has none.
    """
    for each in messages_of(message):
        if each.is_extendable:
            raise missing(f"{each.full_name} can be extended by fields that have no egress rule", "no extensions")
    for field in fields_of(message):
        holds = holding(field)
        if not holds and (could_carry(field) or (strict and could_tell(field))):
            raise missing(f"{field.full_name} has no egress rule", _wanted(kinds))
        if holds and holds not in _REFERENCES | kinds and field.full_name != _ATTACHED:
            expected = " or ".join(sorted(_REFERENCES | kinds))
            raise missing(f"{field.full_name} holds {holds}, which its message may not", expected, f'holds = "{holds}"')


def require_a_calls(message: Descriptor) -> None:
    """Checks that a message can be what a protocol's call asks or answers.

    Raises:
        UnsupportedProtocol: It has no rule, or one of those messages that are made of what has passed elsewhere.
    """
    if rule_of(message).kind in {BLOB, MESSAGES}:
        raise missing(
            f"{message.full_name} is of a kind that no call of a protocol has",
            "an egress kind, control or statement",
        )


def _require_messages(message: Descriptor) -> None:
    """Checks that all that a message is made of has rules: each passes by itself."""
    for field in message.fields:
        if could_carry(field) and holding(field) not in _REFERENCES | {MESSAGES}:
            raise missing(f"{field.full_name} has no egress rule", _wanted(set()))
        if field.message_type is not None and not could_carry(field):
            rule_of(field.message_type)


def messages_of(message: Descriptor) -> Iterator[Descriptor]:
    """A message and all that it holds, each once; what is protobuf's own is not looked into."""
    seen, waiting = {message.full_name}, [message]
    while waiting:
        at = waiting.pop()
        yield at
        for field in at.fields:
            inner = field.message_type
            if inner is not None and inner.full_name not in seen and not inner.full_name.startswith(_GOOGLE):
                seen.add(inner.full_name)
                waiting.append(inner)


def fields_of(message: Descriptor) -> Iterator[FieldDescriptor]:
    """The fields of a message and of all that it holds, each once; what is open-ended is not looked into."""
    for each in messages_of(message):
        yield from each.fields


def could_carry(field: FieldDescriptor) -> bool:
    """Whether a field has room for data: bytes, numbers with fractions, or anything at all."""
    name = field.message_type.full_name if field.message_type is not None else ""
    return field.type in _CARRIERS or (name.startswith(_GOOGLE) and name.removeprefix(_GOOGLE) not in _CLOSED)


def could_tell(field: FieldDescriptor) -> bool:
    """Whether a field has room for more than a number: text, or a list."""
    # Of lists it is empty, in every version of protobuf.
    return field.type == FieldDescriptor.TYPE_STRING or (field.message_type is None and field.default_value == [])


def holding(field: Any) -> str:
    """What a field holds, by its rule; empty where it has none."""
    return str(field.GetOptions().Extensions[egress_pb2.holds])


def is_for_operators(message: Descriptor) -> bool:
    """Whether a message reaches a node's own operator alone."""
    return bool(message.file.GetOptions().Extensions[egress_pb2.operator_only])


def require_control(message: Message) -> None:
    """Checks that a message outside of any session tells nothing.

    Raises:
        UnsupportedProtocol: It could.
    """
    rule = rule_of(message.DESCRIPTOR)
    if rule.kind not in {CONTROL, STATEMENT}:
        raise missing(f"{message.DESCRIPTOR.full_name} cannot be sent outside of a session", CONTROL)


def require_service(name: str) -> bool:
    """Checks that what a service says outside of any session tells nothing; returns whether it is for operators alone.

    Raises:
        UnsupportedProtocol: It could, or there is no such service.
    """
    try:
        methods = Default().FindServiceByName(name).methods
    except KeyError as error:
        raise missing(f"the service {name} has no .proto", "one with rules") from error
    messages = [each for method in methods for each in (method.input_type, method.output_type)]
    others = [each for each in messages if not is_for_operators(each)]
    for each in others:
        if rule_of(each).kind not in {CONTROL, STATEMENT}:
            raise missing(f"{each.full_name} cannot be sent outside of a session", CONTROL)
    return len(others) < len(messages)


def proto_path() -> Path:
    """The folder from which another package's .proto imports `comity/wire/v1/egress.proto`, for protoc's `-I`."""
    shipped = Path(str(files("comity"))) / "protos"
    return shipped if shipped.is_dir() else Path(str(files("comity"))).parents[1] / "protos"


def _field(message: Descriptor, path: str) -> None:
    at: Descriptor | None = message
    for name in path.split("."):
        field = None if at is None else at.fields_by_name.get(name)
        if field is None:
            raise missing(f"the egress rule of {message.full_name} names no field: {path}", "a field of the message")
        at = field.message_type


def _found(path: str, message: Message, request: Message | None) -> Any:
    """What a path leads to: that of an answer, which has a request, into the request where it says so."""
    first, _, rest = path.partition(".")
    return _value(request, rest) if first == "request" and request is not None else _value(message, path)


def _value(message: Message | None, path: str) -> Any:
    value: Any = message
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _wanted(kinds: set[str]) -> str:
    """What is to stand behind a field that could carry data, in a message of such kinds."""
    return f'[(comity.wire.v1.holds) = "{min(kinds, default="identifier")}"]'


def missing(what: str, expected: str, received: str = "none") -> UnsupportedProtocol:
    """What is wrong with a protocol that has no rule, or another than its messages need; its author is told what to write."""
    rules = proto_path() / egress_pb2.DESCRIPTOR.name
    return UnsupportedProtocol(
        what,
        expected=expected,
        received=received,
        action=f"say in its .proto what may leave in it, and generate its code anew; {rules} says which rules there are",
    )
