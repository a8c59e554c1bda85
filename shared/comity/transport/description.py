"""What a node tells any party that it trusts about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from comity import version
from comity.errors import MalformedMessage
from comity.ledger.chain import Clock, utc_now
from comity.session.egress_rules import require_control
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import sessions_pb2 as pb
from comity.wire.v1 import sessions_pb2_grpc

_LONGEST = 64
"""Characters that a name or a version in a description has at most, and protocols that it names."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a node tells any party that it trusts about itself.

    Attributes:
        party: Its party.
        role: Its role.
        version: Version of its installation.
        protocols: Versions of the protocols that it takes part in, by name.
        time: When it was said, by its clock.
    """

    party: str
    role: str
    version: str
    protocols: Mapping[str, int]
    time: datetime


Describe = Callable[[], Description]
"""Says who this node is, now."""


def describing(party: str, role: str, protocols: Mapping[str, int], *, clock: Clock = utc_now) -> Describe:
    """What says who a node is: the same at all times but for the time."""
    installed = version()
    return lambda: Description(party, role, installed, protocols, clock())


def encode_description(description: Description) -> pb.PeerDescription:
    """The message that says who a node is."""
    named = [pb.ProtocolVersion(name=name, version=number) for name, number in description.protocols.items()]
    message = pb.PeerDescription(
        party=description.party, role=description.role, version=description.version, protocols=named
    )
    message.time.FromDatetime(description.time)
    return message


def decode_description(message: pb.PeerDescription, party: str) -> Description:
    """What a peer says of itself.

    Raises:
        MalformedMessage: A field is missing or out of range, or it is another party.
    """
    if message.party != party:
        raise MalformedMessage(
            "another party answers",
            expected=party,
            received=message.party[:_LONGEST] or "no party",
            action=f"check whose node is at the address of {party}",
        )
    texts = [message.role, message.version, *(each.name for each in message.protocols)]
    if not all(1 <= len(each) <= _LONGEST for each in texts) or len(texts) > _LONGEST:
        raise MalformedMessage(
            f"{party} does not describe itself in a way that can be read",
            expected=f"a role, a version and protocols, at most {_LONGEST} characters each",
            received=", ".join(texts)[:_LONGEST] or "nothing",
            action="run the same version of comity on both sides",
        )
    try:
        time = message.time.ToDatetime(UTC) if message.HasField("time") else None
    except (ValueError, OverflowError):
        time = None
    if time is None:
        received = str(message.time) or "nothing"
        raise MalformedMessage(
            f"{party} does not say what time it is", expected="a time", received=received, action="set its clock"
        )
    protocols = {each.name: each.version for each in message.protocols}
    return Description(message.party, message.role, message.version, protocols, time)


def describe(connection: PeerConnection) -> Description:
    """Asks a peer who it is.

    Raises:
        MalformedMessage: It says nothing that can be read, or it is another party.
        TransportError: It did not answer.
    """
    request = pb.DescribePeerRequest()
    require_control(request)
    message = connection.call(connection.stub(sessions_pb2_grpc.SessionsStub).Describe, request)
    return decode_description(message, connection.party)
