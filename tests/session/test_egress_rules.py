"""No message leaves without a rule, and no field that could carry data is without one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, source_context_pb2, type_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message_factory import GetMessageClass
from teacher_votes.v1 import services_pb2, teacher_votes_pb2

from comity.errors import UnsupportedProtocol
from comity.ledger.ledger import in_round
from comity.session.egress_contents import carries, releases_in, require_known
from comity.session.egress_rules import (
    CONTROL,
    METADATA,
    could_carry,
    holding,
    is_for_operators,
    proto_path,
    require_control,
    require_service,
    rule_of,
)
from comity.transport.calls import Unary
from comity.transport.identity import CONTRACT_KEY, PARTY_KEY, SESSION_KEY
from comity.transport.service import Service
from comity.wire import v1
from comity.wire.v1 import blobs_pb2, control_pb2, egress_pb2, sessions_pb2


def files() -> Iterator[Any]:
    for module in pkgutil.iter_modules(v1.__path__):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(f"{v1.__name__}.{module.name}").DESCRIPTOR


def messages() -> Iterator[Descriptor]:
    for file in files():
        yield from file.message_types_by_name.values()


def test_every_message_that_is_sent_has_a_rule() -> None:
    sent = {
        each
        for file in files()
        for service in file.services_by_name.values()
        for method in service.methods
        for each in (method.input_type, method.output_type)
    }
    for message in sent:
        assert is_for_operators(message) or rule_of(message)
    assert {each.file.name for each in sent if is_for_operators(each)} == {"comity/wire/v1/control.proto"}


def test_every_field_that_could_carry_data_says_what_it_holds() -> None:
    without = [
        field.full_name
        for message in messages()
        if not is_for_operators(message)
        for field in message.fields
        if could_carry(field) and not holding(field)
    ]
    assert not without


def declare(name: str, **options: str) -> ServiceDescriptor:
    """A service whose one request has a field of bytes and a text, with these rules."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3")
    file.dependency.append("comity/wire/v1/egress.proto")
    message = file.message_type.add(name="Request")
    if "kind" in options:
        rule = message.options.Extensions[egress_pb2.egress]
        rule.kind, rule.subject = options["kind"], options.get("subject", "it")
        rule.first = options.get("first", "")
    # In a message within: rules go as deep as messages do.
    inner = file.message_type.add(name="Inner")
    message.field.add(name="inner", number=1, type=11, type_name=f".{name}.Inner", label=1)
    data = inner.field.add(name="data", number=1, type=12, label=1)
    if "data" in options:
        data.options.Extensions[egress_pb2.holds] = options["data"]
    text = inner.field.add(name="text", number=2, type=9, label=1)
    if "text" in options:
        text.options.Extensions[egress_pb2.holds] = options["text"]
    if "list" in options:
        inner.field.add(name="list", number=3, type=FieldDescriptor.TYPE_UINT32, label=3)
    if "google" in options:
        file.dependency.append("google/protobuf/type.proto")
        inner.field.add(name="google", number=4, type=11, type_name=f".google.protobuf.{options['google']}", label=1)
    if "extensions" in options:
        file.syntax = "proto2"
        inner.extension_range.add(start=100, end=200)
    reply = file.message_type.add(name="Reply")
    reply.options.Extensions[egress_pb2.egress].kind = CONTROL
    file.service.add(name="Calls").method.add(name="Tell", input_type=f".{name}.Request", output_type=f".{name}.Reply")
    return pooled(file).FindServiceByName(f"{name}.Calls")


def pooled(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pool.DescriptorPool:
    """A pool of this file and of what it imports."""
    pool = descriptor_pool.DescriptorPool()
    for each in (descriptor_pb2, egress_pb2, any_pb2, source_context_pb2, type_pb2):
        pool.AddSerializedFile(each.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


TYPES = {"uint32": 13, "double": 1, "bytes": 12}
MADE = {
    "Loss": ((), {"sum": "double loss"}),
    "Model": ((), {"index": "uint32", "loss": "Loss"}),
    "Offer": (("loss", "model {model.index}", ""), {"round": "uint32", "model": "Model"}),
    "Question": (("control", "", ""), {"round": "uint32", "about": "bytes identifier"}),
    "Answer": (("loss", "answer {request.about}", ""), {"loss": "Loss"}),
    "Reward": ((), {"round": "uint32", "share": "double reward"}),
    "News": (("reward", "news", "reward.round"), {"opened": "uint32", "reward": "Reward"}),
}
"""Messages by name: the egress rule's kind, subject and first unit, and the fields, each with what it holds."""


def made() -> dict[str, Any]:
    """The classes of these messages."""
    file = descriptor_pb2.FileDescriptorProto(name="made.proto", package="made", syntax="proto3")
    file.dependency.append("comity/wire/v1/egress.proto")
    for name, (rule, fields) in MADE.items():
        message = file.message_type.add(name=name)
        if rule:
            kind, subject, first = rule
            message.options.Extensions[egress_pb2.egress].MergeFrom(
                egress_pb2.EgressRule(kind=kind, subject=subject, first=first)
            )
        for number, (field, described) in enumerate(fields.items(), start=1):
            type, _, holds = described.partition(" ")
            added = message.field.add(name=field, number=number, label=1, type=TYPES.get(type, 11))
            if type not in TYPES:
                added.type_name = f".made.{type}"
            if holds:
                added.options.Extensions[egress_pb2.holds] = holds
    pool = pooled(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"made.{name}")) for name in MADE}


SAID = made()


TELL = Unary(method="Tell", handle=lambda *_: None)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"data": "loss"}, "a.Request has no egress rule"),
        ({"kind": "loss"}, "a.Inner.data has no egress rule"),
        ({"kind": "loss", "data": "checkpoint"}, "a.Inner.data holds checkpoint, which its message may not"),
        ({"kind": "loss", "subject": "", "data": "loss"}, "the egress rule of a.Request is incomplete"),
        ({"kind": "loss", "subject": "{inner.other}", "data": "loss"}, "names no field: inner.other"),
        ({"kind": "loss", "first": "inner.round", "data": "loss"}, "names no field: inner.round"),
        ({"kind": "control"}, "a.Inner.data has no egress rule"),
        ({"kind": "control", "data": "identifier"}, "a.Inner.text has no egress rule"),
        ({"kind": "control", "data": "loss", "text": "identifier"}, "holds loss, which its message may not"),
        ({"kind": "statement", "data": "signature"}, "a.Inner.text has no egress rule"),
        ({"kind": "control", "data": "blob", "text": "identifier"}, "holds blob, which its message may not"),
        ({"kind": "control", "data": "messages", "text": "identifier"}, "holds messages, which its message may not"),
        (
            {"kind": "control", "data": "identifier", "text": "identifier", "list": "of numbers"},
            "a.Inner.list has no egress rule",
        ),
        ({"kind": "loss", "data": "loss", "google": "Type"}, "a.Inner.google has no egress rule"),
        ({"kind": "loss", "data": "loss", "google": "Option"}, "a.Inner.google has no egress rule"),
        ({"kind": "loss", "data": "loss", "extensions": "of others"}, "a.Inner can be extended"),
        ({"kind": "blob", "data": "blob"}, "a.Request is of a kind that no call of a protocol has"),
    ],
    ids=str,
)
def test_a_call_without_a_rule_cannot_be_declared(options: dict[str, str], reason: str) -> None:
    with pytest.raises(UnsupportedProtocol, match=reason) as caught:
        Service(declare("a", **options), [TELL], client=object, terms=Empty)
    assert "\n" not in str(caught.value)
    # Who wrote it reads which rules there are.
    assert str(proto_path() / "comity" / "wire" / "v1" / "egress.proto") in caught.value.action


def test_a_missing_rule_is_said_as_it_is_written() -> None:
    with pytest.raises(UnsupportedProtocol) as caught:
        Service(declare("a", kind="loss"), [TELL], client=object, terms=Empty)
    assert caught.value.expected == '[(comity.wire.v1.holds) = "loss"]'


def test_a_call_that_is_made_of_messages_cannot_be_declared() -> None:
    """Each of them would have to pass by itself, and a call's request passes as a whole."""
    service = sessions_pb2.DESCRIPTOR.services_by_name["Sessions"]
    calls = [Unary(method=each.name, handle=TELL.handle) for each in service.methods]
    with pytest.raises(UnsupportedProtocol, match="ProposalReply is of a kind that no call of a protocol has"):
        Service(service, calls, client=object, terms=Empty)


def packing(kind: str) -> Any:
    """Messages with anything in them, in a map, and what stands behind a release, in a map."""
    file = descriptor_pb2.FileDescriptorProto(name=f"packing_{kind}.proto", package=f"packing_{kind}", syntax="proto3")
    file.dependency.extend(
        ["comity/wire/v1/egress.proto", "comity/wire/v1/sessions.proto", "google/protobuf/any.proto"]
    )
    inner = file.message_type.add(name="Inner")
    held = inner.field.add(name="held", number=1, type=11, type_name=".google.protobuf.Any", label=1)
    held.options.Extensions[egress_pb2.holds] = kind
    message = file.message_type.add(name="Outer")
    rule = message.options.Extensions[egress_pb2.egress]
    rule.kind, rule.subject = kind, "it"
    for number, (name, value) in enumerate(
        {"parts": f".packing_{kind}.Inner", "releases": ".comity.wire.v1.Release"}.items()
    ):
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=9, label=1)
        entry.field.add(name="value", number=2, type=11, type_name=value, label=1)
        entry_type = f".packing_{kind}.Outer.{entry.name}"
        message.field.add(name=name, number=number + 1, type=11, type_name=entry_type, label=3)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    found = descriptor_pool.Default().FindFileByName(file.name).message_types_by_name
    return GetMessageClass(found["Outer"]), GetMessageClass(found["Inner"])


def test_what_is_packed_is_looked_into_wherever_it_is() -> None:
    outer_type, inner_type = packing("loss")
    assert rule_of(outer_type.DESCRIPTOR).kind == "loss"
    outer, inner = outer_type(), inner_type()
    require_known(outer)
    outer.parts["a"].held.Pack(sessions_pb2.Release(samples=3))
    outer.releases["b"].samples = 5
    require_known(outer)
    assert sorted(each.samples for each in releases_in(outer)) == [3, 5]
    inner.held.Pack(blobs_pb2.BlobChunk(data=b"a sample"))
    outer.parts["a"].held.Pack(inner)
    with pytest.raises(UnsupportedProtocol, match="BlobChunk.data holds blob, which its message may not"):
        require_known(outer)
    outer.parts["a"].held.type_url = "type.googleapis.com/of.nobody"
    with pytest.raises(UnsupportedProtocol, match="holds an unknown message"):
        require_known(outer)


def test_text_beside_a_part_that_is_not_set_does_not_leave_as_control() -> None:
    request = GetMessageClass(declare("d", kind="loss", data="loss").methods[0].input_type)
    assert not carries(request(), "loss")
    assert carries(request(inner={"text": "a sample"}), "loss")
    file = descriptor_pb2.FileDescriptorProto()
    declare("e", kind="loss", data="loss").file.CopyToProto(file)
    file.name, file.package = "f.proto", "f"
    file.message_type[0].field[0].type_name = ".f.Inner"
    file.message_type[0].field.add(name="note", number=2, type=9, label=1)
    del file.service[:]
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    noted = GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("f.Request"))
    assert carries(noted(note="a sample"), "loss")
    assert not carries(noted(), "loss")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("comity.wire.v1.Blobs", "cannot be sent outside of a session"),
        (teacher_votes_pb2.DESCRIPTOR.services_by_name["Pooling"].full_name, "cannot be sent outside of a session"),
        ("of.Nobody", "has no .proto"),
    ],
)
def test_a_service_without_a_session_tells_nothing(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedProtocol, match=reason):
        require_service(name)
    assert require_service(control_pb2.DESCRIPTOR.services_by_name["Control"].full_name)
    assert not require_service(services_pb2.DESCRIPTOR.services_by_name["Labels"].full_name)


def test_with_rules_only_its_codec_is_missing() -> None:
    with pytest.raises(UnsupportedProtocol, match="Request.inner has no codec"):
        Service(declare("b", kind="loss", data="loss"), [TELL], client=object, terms=Empty)


def test_every_call_of_a_service_is_declared_once() -> None:
    for calls in ([], [TELL, TELL], [TELL, Unary(method="Other", handle=TELL.handle)]):
        with pytest.raises(UnsupportedProtocol, match="are not those of its .proto"):
            Service(declare("c", kind="loss", data="loss"), calls, client=object, terms=Empty)


def test_nothing_but_control_leaves_outside_of_a_session() -> None:
    require_control(sessions_pb2.EndRequest())
    with pytest.raises(UnsupportedProtocol, match="outside of a session"):
        require_control(sessions_pb2.Contract())
    with pytest.raises(UnsupportedProtocol, match="has no egress rule"):
        require_control(Empty())


@pytest.mark.parametrize(
    ("message", "kind", "holds"),
    [
        (SAID["Offer"](), "loss", False),
        (SAID["Offer"](model={"loss": {"sum": 0.0}}), "loss", True),
        (SAID["Offer"](model={"index": 3}), "loss", False),
        (SAID["News"](opened=1), "reward", False),
        (SAID["News"](reward={"round": 1}), "reward", True),
        (sessions_pb2.Agreement(), "contract", True),
    ],
    ids=str,
)
def test_a_message_carries_what_is_set_in_it(message: Any, kind: str, holds: bool) -> None:
    assert carries(message, kind) is holds


def test_rules_name_subject_and_units() -> None:
    digest = bytes(range(32))
    request, answer = SAID["Question"](round=4, about=digest), SAID["Answer"](loss={"sum": 1.0})
    rule = rule_of(answer.DESCRIPTOR)
    assert (rule.subject_of(answer, request), rule.units_of(answer, request)) == (
        f"answer {digest.hex()}",
        in_round(4),
    )
    offer = SAID["Offer"](round=2, model={"index": 3})
    rule = rule_of(offer.DESCRIPTOR)
    assert (rule.subject_of(offer), rule.units_of(offer)) == ("model 3", in_round(2))
    news = SAID["News"](reward={"round": 2})
    assert rule_of(news.DESCRIPTOR).units_of(news) == in_round(2)


def test_what_travels_beside_a_call_has_a_rule() -> None:
    source = Path(__file__).parents[2] / "shared" / "comity" / "transport"
    named = {PARTY_KEY, SESSION_KEY, CONTRACT_KEY}
    for line in (source / "blobs.py").read_text(encoding="utf-8").splitlines():
        named |= {
            word.strip('" ,') for word in line.split("=")[-1].split(", ") if word.strip('" ,').startswith("comity-")
        }
    assert named <= set(METADATA)
    assert set(METADATA.values()) == {"identifier"}


def test_another_package_finds_the_protos() -> None:
    assert (proto_path() / "comity" / "wire" / "v1" / "egress.proto").is_file()
