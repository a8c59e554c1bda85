"""No message leaves without a rule, and no field that could carry data is without one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.empty_pb2 import Empty

from comity.errors import UnsupportedProtocol
from comity.ledger.ledger import in_round
from comity.session.egress_rules import (
    CONTROL,
    METADATA,
    carries,
    could_carry,
    holding,
    is_for_operators,
    proto_path,
    require_control,
    rule_of,
)
from comity.transport.calls import Service, Unary
from comity.transport.identity import PARTY_KEY
from comity.transport.peer_connection import CONTRACT_KEY, SESSION_KEY
from comity.wire import v1
from comity.wire.v1 import assisted_learning_pb2, blobs_pb2, egress_pb2, gradient_rewards_pb2, sessions_pb2


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
    reply = file.message_type.add(name="Reply")
    reply.options.Extensions[egress_pb2.egress].kind = CONTROL
    file.service.add(name="Calls").method.add(name="Tell", input_type=f".{name}.Request", output_type=f".{name}.Reply")
    pool = descriptor_pool.DescriptorPool()
    for each in (descriptor_pb2, egress_pb2):
        pool.AddSerializedFile(each.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName(f"{name}.Calls")


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
    ],
    ids=str,
)
def test_a_call_without_a_rule_cannot_be_declared(options: dict[str, str], reason: str) -> None:
    with pytest.raises(UnsupportedProtocol, match=reason) as caught:
        Service(declare("a", **options), [TELL], client=object, terms=Empty)
    assert "\n" not in str(caught.value)


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
        (assisted_learning_pb2.OfferRequest(), "loss", False),
        (assisted_learning_pb2.OfferRequest(checkpoint={"loss": {"sum": 0.0}}), "loss", True),
        (assisted_learning_pb2.OfferRequest(checkpoint={"index": 3}), "loss", False),
        (gradient_rewards_pb2.RoundNews(opened=1), "reward", False),
        (gradient_rewards_pb2.RoundNews(reward={"round": 1}), "reward", True),
        (sessions_pb2.Agreement(), "contract", True),
    ],
    ids=str,
)
def test_a_message_carries_what_is_set_in_it(message: Any, kind: str, holds: bool) -> None:
    assert carries(message, kind) is holds


def test_rules_name_subject_and_units() -> None:
    digest = bytes(range(32))
    request = assisted_learning_pb2.AssessRequest(round=4, blob=blobs_pb2.BlobRef(digest=digest))
    answer = assisted_learning_pb2.Assessment(loss={"sum": 1.0, "count": 2})
    rule = rule_of(answer.DESCRIPTOR)
    assert (rule.subject_of(answer, request), rule.units_of(answer, request)) == (
        f"assessment {digest.hex()}",
        in_round(4),
    )
    news = gradient_rewards_pb2.RoundNews(reward={"round": 2})
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
