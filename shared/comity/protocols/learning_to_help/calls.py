"""The calls of learning to help, each once: what a client asks of the server; and who makes and who takes them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from comity.contract import Contract, Membership
from comity.ledger.receipts import SignedStatement
from comity.privacy.limits import TrainingPlan
from comity.protocol.implementation import Implementation
from comity.protocols.learning_to_help.client import Client
from comity.protocols.learning_to_help.messages import Helping
from comity.protocols.learning_to_help.server import Server
from comity.protocols.learning_to_help.task import LOCAL, REJECTOR, SERVER, TASK, HelpTask, helping_terms
from comity.session.contexts import PeerContext, SessionContext
from comity.session.metering import Tally
from comity.tensors import Layout
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.client import PeerPort
from comity.transport.calls import BlobField, Stream, Unary, Waiting
from comity.transport.service import Service
from comity.wire.v1 import learning_to_help_pb2 as pb


def _rejector(client: PeerContext) -> Layout:
    layout: Layout = client.task.layouts[REJECTOR]
    return layout


LEARN = Waiting(
    method="Learn",
    handle=lambda server, _, *model: server.learn(*model),
    uploads=(BlobField("local_model", "local"),),
    downloads=(BlobField("checkpoint", "rejector", layout=_rejector),),
)
ACKNOWLEDGE = Unary(method="AcknowledgeRejector", handle=lambda *_: None, delivers=True)
ASK = Waiting(method="Ask", handle=lambda server, _, *asked: server.ask(*asked), cancels=True, metered=True)
CONVERSE = Stream(
    method="Converse",
    handle=lambda server, _, *asked: server.ask(*asked),
    key=lambda message: message.first,
    most=128,
    metered=True,
)
TALLY = Unary(method="TallyAnswers", handle=lambda server, _: server.tally())
SETTLE = Unary(method="SettleAnswers", handle=lambda server, _, request: server.settle(request))


class ServerPort(PeerPort):
    """Implements `Helping`.

    Args:
        context: The client's context opposite the server.
        channel: The way to the server.
    """

    def __init__(self, context: PeerContext, channel: Channel) -> None:
        super().__init__(SERVICE, context, channel)

    def learn(self, local: bytes, minimum: float, maximum: float) -> Future[bytes]:
        """See `Helping.learn`."""
        return self._ask(LEARN, local, minimum, maximum)

    def acknowledge(self) -> None:
        """See `Helping.acknowledge`."""
        self._call(ACKNOWLEDGE)

    def ask(self, first: int, count: int, features: bytes, within_ms: int) -> Future[Any]:
        """See `Helping.ask`; on one stream."""
        return self._ask(CONVERSE, first, count, features, within_ms)

    def tally(self) -> Tally:
        """See `Helping.tally`."""
        tally: Tally = self._call(TALLY)
        return tally

    def settle(self, request: SignedStatement) -> SignedStatement:
        """See `Helping.settle`."""
        receipt: SignedStatement = self._call(SETTLE, request)
        return receipt


SERVICE = Service(
    pb.DESCRIPTOR.services_by_name["LearningToHelp"],
    (LEARN, ACKNOWLEDGE, ASK, CONVERSE, TALLY, SETTLE),
    client=ServerPort,
    terms=pb.LearningToHelpTerms,
)


def _initiator(contexts: Sequence[PeerContext], ports: Sequence[Helping]) -> Client:
    (context,), (port,) = contexts, ports
    return Client(context, port)


def _acceptor(session: SessionContext, contexts: Sequence[PeerContext]) -> Server:
    (context,) = contexts
    return Server(session, context)


def _disk_space(contract: Contract, own: Membership, peer: Membership, task: HelpTask) -> int:
    """Most that a party keeps at a time: the client's model, the rejector, and, at the server, the classifier."""
    del contract, peer
    names = (LOCAL, REJECTOR, SERVER) if own.role == "server" else (LOCAL, REJECTOR)
    return sum(task.layouts[name].size for name in names)


def _training_plan(contract: Contract, own: Membership, settings: Any) -> TrainingPlan | None:
    """What of a server's training leaves: the rejector, once; nothing of a client's is judged."""
    del settings
    terms = helping_terms(contract)
    if own.role != "server" or not own.samples:
        return None
    steps = terms.rejector_epochs * -(-own.samples // terms.batch_size)
    return TrainingPlan(
        terms.batch_size,
        steps,
        steps,
        "adam",
        terms.learning_rate,
        is_private=False,
        steps_term="rejector_epochs",
        leaving=(REJECTOR,),
    )


IMPLEMENTATION = Implementation(
    service=SERVICE,
    task=TASK,
    disk_space=_disk_space,
    initiator=_initiator,
    acceptor=_acceptor,
    judged=("checkpoint",),
    training_plan=_training_plan,
)
