"""The provider's port within one process, by way of the wire's messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from comity.protocols.assisted_learning import codec
from comity.protocols.assisted_learning.messages import Checkpoint, Receipt, idle
from comity.protocols.assisted_learning.provider import Provider
from comity.transport.blobs import digest_in
from comity.transport.in_process import download, pass_message, upload
from comity.transport.protocol import Seat
from comity.wire.v1 import assisted_learning_pb2 as pb


class InProcessProvider:
    """Implements `Assistance`; the provider works while the learner waits.

    Args:
        learner: The learner's seat.
        seat: The provider's seat.
        provider: The provider.
    """

    def __init__(self, learner: Seat, seat: Seat, provider: Provider) -> None:
        self._learner = learner
        self._seat = seat
        self._provider = provider

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        """See `Assistance.offer`."""
        upload(checkpoint.blob, "checkpoint", round, self._learner, self._seat)
        request = pb.OfferRequest(round=round, checkpoint=codec.checkpoint_to_proto(checkpoint))
        request = pass_message(request, "loss", f"checkpoint {checkpoint.index}", round, self._learner, self._seat)
        offered = codec.checkpoint_from_proto(request.checkpoint, lambda ref: self._seat.blobs.get(digest_in(ref)))
        self._provider.offer(request.round, offered)

    def close(self, round: int, count: int) -> Receipt:
        """See `Assistance.close`."""
        request = pb.CloseRoundRequest.FromString(pb.CloseRoundRequest(round=round, count=count).SerializeToString())
        receipt = codec.receipt_to_proto(self._provider.close(request.round, request.count))
        return codec.receipt_from_proto(pb.Receipt.FromString(receipt.SerializeToString()))

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:  # noqa: ARG002
        """See `Assistance.results`; nobody waits, so nothing is done meanwhile."""
        for checkpoint in self._provider.results(round, skip):
            result = pb.Result(checkpoint=codec.checkpoint_to_proto(checkpoint))
            subject = f"checkpoint {checkpoint.index}"
            result = pass_message(result, "loss", subject, round, self._seat, self._learner)
            yield codec.checkpoint_from_proto(
                result.checkpoint, lambda ref: download(digest_in(ref), self._seat, self._learner)
            )
