"""The provider's port within one process, by way of the wire's messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

from comity.ledger.receipts import SignedStatement
from comity.protocols.assisted_learning import codec
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.messages import Checkpoint, assessment_subject, delta_base, idle
from comity.protocols.assisted_learning.provider import Provider
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.session.contexts import PeerContext
from comity.transport.blobs import digest_in
from comity.transport.in_process import download, encoded, pass_message, upload
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import blobs_pb2


class InProcessProvider:
    """Implements `Assistance`; the provider works while the learner waits.

    Args:
        learner: The learner's context.
        context: The provider's context.
        provider: The provider.
    """

    def __init__(self, learner: PeerContext, context: PeerContext, provider: Provider) -> None:
        self._learner = learner
        self._context = context
        self._provider = provider
        self._before: Checkpoint | None = None

    def assess(self, round: int, digest: bytes) -> Future[Loss]:
        """See `Assistance.assess`; the answer is there at once."""
        upload(digest, "checkpoint", round, self._learner, self._context)
        sent = encoded(pb.AssessRequest(round=round, blob=blobs_pb2.BlobRef(digest=digest)))
        loss = self._provider.assess(sent.round, digest_in(sent.blob)).result()
        answer, subject = pb.Assessment(loss=codec.loss_to_proto(loss)), assessment_subject(digest)
        self._context.gate.intend("loss", subject, answer.ByteSize(), round=round)
        heard: Future[Loss] = Future()
        heard.set_result(codec.assessment_from_proto(encoded(answer)))
        self._learner.gate.admit("loss", subject, answer.ByteSize(), round=round)
        return heard

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        """See `Assistance.offer`."""
        base = delta_base(self._provider.encoding, checkpoint, self._before)
        self._before = checkpoint
        upload(checkpoint.digest, "checkpoint", round, self._learner, self._context, base)
        message = pb.OfferRequest(round=round, checkpoint=codec.checkpoint_to_proto(checkpoint))
        subject = f"checkpoint {checkpoint.index}"
        with pass_message(message, "loss", subject, round, self._learner, self._context) as request:
            self._provider.offer(request.round, codec.checkpoint_from_proto(request.checkpoint))
        self._learner.gate.deliver("loss", subject, round=round)

    def close(self, round: int, count: int, request: SignedStatement) -> SignedStatement:
        """See `Assistance.close`."""
        sent = encoded(pb.CloseRoundRequest(round=round, count=count, request=statement_to_proto(request)))
        receipt = self._provider.close(sent.round, sent.count, statement_from_proto(sent.request))
        return statement_from_proto(encoded(statement_to_proto(receipt)))

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:  # noqa: ARG002
        """See `Assistance.results`; nobody waits, so nothing is done meanwhile."""
        for made in self._provider.results(round, skip):
            before = self._provider.trajectory(round)[made.index - 1] if made.index else None
            base = delta_base(self._provider.encoding, made, before)
            message = codec.result_to_proto(made, base)
            self._context.gate.intend("loss", f"checkpoint {made.index}", message.ByteSize(), round=round)
            checkpoint = codec.checkpoint_from_proto(encoded(message).checkpoint)
            download(checkpoint.digest, self._context, self._learner, base)
            self._learner.gate.admit("loss", f"checkpoint {made.index}", message.ByteSize(), round=round)
            yield checkpoint

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Assistance.acknowledge`."""
        sent = encoded(pb.AcknowledgeRequest(round=round, acknowledgement=statement_to_proto(acknowledgement)))
        self._provider.acknowledge(sent.round, statement_from_proto(sent.acknowledgement))
        self._context.gate.deliver_all(round)
