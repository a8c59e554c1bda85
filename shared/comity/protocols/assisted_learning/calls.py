"""The calls of assisted learning, each once: what a learner asks of a provider; and who makes and who takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from comity.ledger.receipts import SignedStatement
from comity.protocol.implementation import Implementation
from comity.protocols.assisted_learning import codec
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.extensions import Settings
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Assistance, Checkpoint, delta_base, idle
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.protocols.assisted_learning.task import TASK, disk_space, private_training, training_plan
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.session.contexts import PeerContext, SessionContext
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.client import PeerPort
from comity.transport.calls import BlobField, Unary, Waiting, Watch
from comity.transport.service import Service
from comity.wire.v1 import assisted_learning_pb2 as pb


def _result(provider: Provider, checkpoint: Checkpoint, before: Checkpoint | None) -> pb.Result:
    return codec.result_to_proto(checkpoint, delta_base(provider.encoding, checkpoint, before))


def _resume(request: pb.WatchResultsRequest, _: pb.Result) -> None:
    request.skip += 1


ASSESS = Waiting(
    method="Assess",
    handle=lambda provider, _, round, digest: provider.assess(round, digest),
    uploads=(BlobField("checkpoint", "blob"),),
)
OFFER = Unary(
    method="Offer",
    handle=lambda provider, _, round, checkpoint: provider.offer(round, checkpoint),
    uploads=(BlobField("checkpoint", "checkpoint.blob"),),
)
CLOSE = Unary(
    method="CloseRound", handle=lambda provider, _, round, count, request: provider.close(round, count, request)
)
ACKNOWLEDGE = Unary(
    method="Acknowledge", handle=lambda provider, _, round, signed: provider.acknowledge(round, signed), delivers=True
)
WATCH_RESULTS = Watch(
    method="WatchResults",
    handle=lambda provider, _, round, skip: (provider.trajectory(round), skip),
    encode=_result,
    decode=lambda message: codec.checkpoint_from_proto(message.checkpoint),
    resume=_resume,
    downloads=(BlobField("checkpoint", "checkpoint.blob", "base"),),
    offline=lambda round: (round, 0),
)


class ProviderPort(PeerPort):
    """Implements `Assistance`: offers and questions leave while the learner trains on, where they take time.

    Args:
        context: The learner's context opposite the provider.
        channel: The way to the provider.
    """

    def __init__(self, context: PeerContext, channel: Channel) -> None:
        super().__init__(SERVICE, context, channel)
        terms: Any = context.contract.terms
        self._encoding = terms.trajectory_encoding if isinstance(terms, AssistedLearningTerms) else "dense"
        self._before: Checkpoint | None = None

    def assess(self, round: int, digest: bytes) -> Future[Loss]:
        """See `Assistance.assess`."""
        return self._ask(ASSESS, round, digest)

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        """See `Assistance.offer`; what goes wrong on the way is raised by a later call of the round."""
        base = delta_base(self._encoding, checkpoint, self._before)
        self._before = checkpoint
        self._send(OFFER, round, checkpoint, base=base)

    def close(self, round: int, count: int, request: SignedStatement) -> SignedStatement:
        """See `Assistance.close`; waits until every offer has arrived."""
        receipt: SignedStatement = self._call(CLOSE, round, count, request)
        return receipt

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:
        """See `Assistance.results`."""
        return self._follow(WATCH_RESULTS, round, skip, meanwhile=meanwhile)

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Assistance.acknowledge`."""
        self._call(ACKNOWLEDGE, round, acknowledgement)


SERVICE = Service(
    pb.DESCRIPTOR.services_by_name["AssistedLearning"],
    (ASSESS, OFFER, CLOSE, ACKNOWLEDGE, WATCH_RESULTS),
    client=ProviderPort,
    converters={
        pb.Checkpoint: (codec.checkpoint_to_proto, codec.checkpoint_from_proto),
        pb.Loss: (codec.loss_to_proto, codec.loss_from_proto),
    },
    terms=pb.AssistedLearningTerms,
)


def _party(contexts: Sequence[PeerContext]) -> Party:
    one = contexts[0]
    peers = [context.peer for context in contexts]
    ahead = isinstance(one.settings, Settings) and one.settings.speculative
    verdicts = one.place.verdicts
    return Party(one.task, one.blobs, one.journal, one.contract, one.own, *peers, works_ahead=ahead, verdicts=verdicts)


def _initiator(contexts: Sequence[PeerContext], ports: Sequence[Assistance]) -> Learner:
    receipt_books = [context.receipt_book for context in contexts]
    return Learner(_party(contexts), list(zip(ports, receipt_books, strict=True)), contexts[0].observe)


def _acceptor(session: SessionContext, contexts: Sequence[PeerContext]) -> Provider:
    (context,) = contexts
    return Provider(_party(contexts), context.receipt_book, session.observe)


IMPLEMENTATION = Implementation(
    service=SERVICE,
    task=TASK,
    disk_space=disk_space,
    initiator=_initiator,
    acceptor=_acceptor,
    private_training=private_training,
    judged=("checkpoint",),
    training_plan=training_plan,
)
