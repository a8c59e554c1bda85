"""Messages of Nash bargaining to protobuf and back; what does not fit is refused here."""

from __future__ import annotations

from comity.errors import MalformedMessage
from comity.ledger.ledger import Units
from comity.protocols.nash_bargaining.messages import Gradient
from comity.session.codec import release_from_proto, release_to_proto, statement_from_proto, statement_to_proto
from comity.transport.blobs import digest_in
from comity.transport.methods import require_complete
from comity.wire.v1 import blobs_pb2
from comity.wire.v1 import nash_bargaining_pb2 as pb


def arrived_to_proto(units: Units) -> pb.ArrivedRounds:
    """Encodes rounds whose gradients have come."""
    return pb.ArrivedRounds(first=units.first, count=units.count)


def arrived_from_proto(message: pb.ArrivedRounds) -> Units:
    """Decodes rounds whose gradients have come.

    Raises:
        MalformedMessage: They are none.
    """
    if not message.first or not message.count:
        raise MalformedMessage(
            "no rounds have arrived",
            expected="a first round and a count, from 1",
            received=f"{message.count} from {message.first}",
            action="name the rounds whose gradients have come, or none",
        )
    return Units("round", message.first, message.count)


def gradient_to_proto(gradient: Gradient) -> pb.DifferentiateReply:
    """Encodes a provider's answer; the gradient travels as a blob."""
    blob = None if gradient.blob is None else blobs_pb2.BlobRef(digest=gradient.blob)
    return pb.DifferentiateReply(
        gradient=blob, release=release_to_proto(gradient.release), receipt=statement_to_proto(gradient.receipt)
    )


def gradient_from_proto(message: pb.DifferentiateReply) -> Gradient:
    """Decodes a provider's answer.

    Raises:
        MalformedMessage: A field is missing or out of range.
    """
    require_complete(message)
    blob = digest_in(message.gradient) if message.HasField("gradient") else None
    return Gradient(blob, release_from_proto(message.release), statement_from_proto(message.receipt))
