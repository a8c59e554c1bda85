"""The calls of Nash bargaining, each once: what a learner asks of a provider; and who makes and who takes them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from comity.ledger.ledger import Units
from comity.ledger.receipts import SignedStatement
from comity.protocol.implementation import Implementation
from comity.protocols.nash_bargaining import codec
from comity.protocols.nash_bargaining.alone import COMPARING
from comity.protocols.nash_bargaining.learner import Learner
from comity.protocols.nash_bargaining.messages import Bargaining, Gradient
from comity.protocols.nash_bargaining.provider import Provider
from comity.protocols.nash_bargaining.task import TASK, disk_space, private_training, training_plan
from comity.session.contexts import PeerContext, SessionContext
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.client import PeerPort
from comity.transport.calls import BlobField, Unary, Waiting
from comity.transport.service import Service
from comity.wire.v1 import nash_bargaining_pb2 as pb


def _differentiate(provider: Bargaining, context: PeerContext, *asked: Any) -> Future[Gradient]:
    """Asks the provider, and notes what the learner has by now."""
    answer = provider.differentiate(*asked)
    *_, arrived = asked
    for units in arrived:
        context.gate.deliver_all(units)
    return answer


DIFFERENTIATE = Waiting(
    method="Differentiate",
    handle=_differentiate,
    uploads=(BlobField("checkpoint", "model"),),
    downloads=(BlobField("update", "gradient", layout=lambda learner: learner.task.gradient_layout),),
)
ACKNOWLEDGE = Unary(
    method="Acknowledge",
    handle=lambda provider, _, first, count: provider.acknowledge(Units("round", first, count)),
    delivers=True,
)


class ProviderPort(PeerPort):
    """Implements `Bargaining`.

    Args:
        context: The learner's context opposite the provider.
        channel: The way to the provider.
    """

    def __init__(self, context: PeerContext, channel: Channel) -> None:
        super().__init__(SERVICE, context, channel)

    def differentiate(
        self,
        round: int,
        model: bytes,
        request: SignedStatement,
        withdrawals: Sequence[SignedStatement],
        arrived: Sequence[Units] = (),
    ) -> Future[Gradient]:
        """See `Bargaining.differentiate`."""
        return self._ask(DIFFERENTIATE, round, model, request, withdrawals, list(arrived))

    def acknowledge(self, units: Units) -> None:
        """See `Bargaining.acknowledge`."""
        self._call(ACKNOWLEDGE, units.first, units.count)


SERVICE = Service(
    pb.DESCRIPTOR.services_by_name["NashBargaining"],
    (DIFFERENTIATE, ACKNOWLEDGE),
    client=ProviderPort,
    converters={
        pb.DifferentiateReply: (codec.gradient_to_proto, codec.gradient_from_proto),
        pb.ArrivedRounds: (codec.arrived_to_proto, codec.arrived_from_proto),
    },
    terms=pb.NashBargainingTerms,
)


def _acceptor(session: SessionContext, contexts: Sequence[PeerContext]) -> Provider:
    del session
    (context,) = contexts
    return Provider(context)


IMPLEMENTATION = Implementation(
    service=SERVICE,
    task=TASK,
    disk_space=disk_space,
    initiator=Learner,
    acceptor=_acceptor,
    private_training=private_training,
    judged=("update",),
    training_plan=training_plan,
    comparing=COMPARING,
)
