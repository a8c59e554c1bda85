"""A node says who it is to any party that it trusts, and nothing of its sessions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from comity import version
from comity.errors import CertificateRejected, MalformedMessage, RemoteFailure
from comity.transport.certificates import Authority
from comity.transport.description import Description, decode_description, describe, describing, encode_description
from comity.transport.identity import Identity
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import sessions_pb2 as pb

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOSPITAL = Description("hospital", "teacher", "0.1.0", {"teacher_votes": 1}, NOON)


def test_a_description_crosses_unchanged() -> None:
    message = pb.PeerDescription.FromString(encode_description(HOSPITAL).SerializeToString())
    assert decode_description(message, "hospital") == HOSPITAL


def test_a_node_describes_itself_to_a_party_that_it_trusts(
    serve: Callable[..., Any], connect: Callable[..., PeerConnection], issue: Callable[..., Identity]
) -> None:
    says = describing("hospital", "teacher", {"teacher_votes": 1}, clock=lambda: NOON)
    host = serve(identity=issue("hospital"), describe=says)
    told = describe(connect(host.address, identity=issue("clinic")))
    assert told == Description("hospital", "teacher", version(), {"teacher_votes": 1}, NOON)
    with pytest.raises(CertificateRejected):
        describe(connect(host.address, identity=issue("mallory", Authority.create())))


def test_a_node_says_what_time_it_is_when_it_is_asked(
    serve: Callable[..., Any], connect: Callable[..., PeerConnection]
) -> None:
    before = datetime.now(UTC)
    connection = connect(serve().address)
    first, second = describe(connection).time, describe(connection).time
    assert before <= first < second <= datetime.now(UTC) + timedelta(microseconds=1)


def test_a_description_says_nothing_of_sessions() -> None:
    fields = {field.name for field in pb.PeerDescription.DESCRIPTOR.fields}
    assert fields == {"party", "role", "version", "protocols", "time"}
    assert not pb.DescribePeerRequest.DESCRIPTOR.fields


def test_a_node_that_cannot_describe_itself_is_said_to_fail(
    echo: Callable[..., Any], connect: Callable[..., PeerConnection]
) -> None:
    with pytest.raises(RemoteFailure, match="UNIMPLEMENTED"):
        describe(connect(echo().address))


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"party": "bank"}, "received bank"),
        ({"party": ""}, "received no party"),
        ({"role": ""}, "at most 64 characters"),
        ({"version": "9" * 65}, "at most 64 characters"),
        ({"protocols": [pb.ProtocolVersion(version=1)]}, "at most 64 characters"),
        ({"protocols": [pb.ProtocolVersion(name=f"p{i}", version=1) for i in range(63)]}, "at most 64"),
        ({"time": None}, "what time it is: expected a time, received nothing"),
        ({"time": Timestamp(seconds=2**62)}, "what time it is"),
        ({"time": Timestamp(nanos=-1)}, "what time it is"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(changes: dict[str, Any], received: str) -> None:
    message = encode_description(HOSPITAL)
    for name, value in changes.items():
        message.ClearField(name)
        if value is not None:
            message.MergeFrom(pb.PeerDescription(**{name: value}))
    with pytest.raises(MalformedMessage, match=received):
        decode_description(message, "hospital")
