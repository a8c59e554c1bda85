"""Messages of assisted learning to protobuf and back; what does not fit is refused here."""

from __future__ import annotations

import math

from comity.errors import MalformedMessage, NonFiniteValue
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.messages import Checkpoint
from comity.transport.blobs import digest_in
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import blobs_pb2


def loss_to_proto(loss: Loss) -> pb.Loss:
    """Encodes a loss."""
    return pb.Loss(sum=loss.sum, count=loss.count)


def loss_from_proto(message: pb.Loss) -> Loss:
    """Decodes a loss.

    Raises:
        NonFiniteValue: The sum is NaN or infinite.
        MalformedMessage: The sum is negative, or the count is 0.
    """
    if not math.isfinite(message.sum):
        raise NonFiniteValue(
            "the loss is not finite", expected="a finite sum", received=message.sum, action="lower the learning_rate"
        )
    if message.sum < 0 or message.count < 1:
        raise MalformedMessage(
            "the loss is out of range",
            expected="a sum from 0 over 1 sample or more",
            received=f"{message.sum} over {message.count}",
            action="send the sum of the samples' losses and their number",
        )
    return Loss(message.sum, message.count)


def checkpoint_to_proto(checkpoint: Checkpoint) -> pb.Checkpoint:
    """Encodes a checkpoint; its tensors travel as a blob."""
    return pb.Checkpoint(
        index=checkpoint.index,
        iteration=checkpoint.iteration,
        blob=blobs_pb2.BlobRef(digest=checkpoint.digest),
        loss=loss_to_proto(checkpoint.loss),
    )


def result_to_proto(checkpoint: Checkpoint, base: bytes | None) -> pb.Result:
    """Encodes a checkpoint of the provider's trajectory, and against what its blob may be asked for."""
    reference = None if base is None else blobs_pb2.BlobRef(digest=base)
    return pb.Result(checkpoint=checkpoint_to_proto(checkpoint), base=reference)


def checkpoint_from_proto(message: pb.Checkpoint) -> Checkpoint:
    """Decodes a checkpoint.

    Raises:
        MalformedMessage: A field is missing or out of range.
        NonFiniteValue: The loss is not finite.
    """
    for name in ("blob", "loss"):
        if not message.HasField(name):
            raise MalformedMessage(
                "the checkpoint is incomplete", expected=name, received="nothing", action="send both blob and loss"
            )
    return Checkpoint(message.index, message.iteration, digest_in(message.blob), loss_from_proto(message.loss))
