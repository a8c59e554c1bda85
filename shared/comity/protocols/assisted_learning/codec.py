"""Messages of assisted learning to protobuf and back; what does not fit is refused here."""

from __future__ import annotations

import math

from comity.errors import MalformedMessage, NonFiniteValue
from comity.protocols.assisted_learning.algorithm import JointLoss, Loss
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


MOST_NUMBERS = 64
"""Most numbers of a joint loss: two more than it takes to write down any sum of floats exactly."""


def joint_loss_to_proto(loss: JointLoss) -> pb.JointLoss:
    """Encodes a joint loss."""
    return pb.JointLoss(numbers=loss.numbers)


def joint_loss_from_proto(message: pb.JointLoss) -> JointLoss:
    """Decodes a joint loss.

    Raises:
        NonFiniteValue: Its sum is NaN or infinite.
        MalformedMessage: It is negative, or more numbers than a sum takes.
    """
    if len(message.numbers) > MOST_NUMBERS:
        raise MalformedMessage(
            "the joint loss is too long",
            expected=f"at most {MOST_NUMBERS} numbers",
            received=len(message.numbers),
            action="send the numbers that the sum takes",
        )
    try:
        total = math.fsum(message.numbers)
    except (OverflowError, ValueError):
        total = math.nan
    if not math.isfinite(total):
        raise NonFiniteValue(
            "the joint loss is not finite", expected="a finite sum", received=total, action="lower the learning_rate"
        )
    if total < 0:
        raise MalformedMessage(
            "the joint loss is out of range",
            expected="a sum from 0",
            received=total,
            action="send what the other parties' losses add up to",
        )
    return JointLoss(tuple(message.numbers))


def checkpoint_to_proto(checkpoint: Checkpoint) -> pb.Checkpoint:
    """Encodes a checkpoint; its tensors travel as a blob."""
    message = pb.Checkpoint(
        index=checkpoint.index, iteration=checkpoint.iteration, blob=blobs_pb2.BlobRef(digest=checkpoint.digest)
    )
    if isinstance(checkpoint.loss, JointLoss):
        message.joint_loss.CopyFrom(joint_loss_to_proto(checkpoint.loss))
    else:
        message.loss.CopyFrom(loss_to_proto(checkpoint.loss))
    return message


def result_to_proto(checkpoint: Checkpoint, base: bytes | None) -> pb.Result:
    """Encodes a checkpoint of the provider's trajectory, and against what its blob may be asked for."""
    reference = None if base is None else blobs_pb2.BlobRef(digest=base)
    return pb.Result(checkpoint=checkpoint_to_proto(checkpoint), base=reference)


def checkpoint_from_proto(message: pb.Checkpoint) -> Checkpoint:
    """Decodes a checkpoint.

    Raises:
        MalformedMessage: A field is missing or out of range, or there are two losses.
        NonFiniteValue: The loss is not finite.
    """
    losses = [name for name in ("loss", "joint_loss") if message.HasField(name)]
    if not message.HasField("blob") or len(losses) != 1:
        raise MalformedMessage(
            "the checkpoint is incomplete",
            expected="loss or joint_loss" if message.HasField("blob") else "blob",
            received="both" if len(losses) > 1 else "nothing",
            action="send the blob and one loss",
        )
    is_joint = message.HasField("joint_loss")
    loss = joint_loss_from_proto(message.joint_loss) if is_joint else loss_from_proto(message.loss)
    return Checkpoint(message.index, message.iteration, digest_in(message.blob), loss)
