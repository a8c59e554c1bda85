"""The calls of learning to help, each once: what a client asks of the server; and who makes and who takes them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from comity.contract import Contract, Membership
from comity.ledger.receipts import SignedStatement
from comity.privacy.limits import TrainingPlan
from comity.protocol.implementation import Implementation
from comity.protocols.learning_to_help.alone import COMPARING
from comity.protocols.learning_to_help.client import Client
from comity.protocols.learning_to_help.messages import Helping, copies_of
from comity.protocols.learning_to_help.server import Server
from comity.protocols.learning_to_help.task import LOCAL, REJECTOR, SERVER, HelpTask, helping_terms
from comity.protocols.learning_to_help.task_builder import HelpTaskBuilder
from comity.protocols.learning_to_help.training import Fitting
from comity.session.contexts import PeerContext, SessionContext
from comity.session.metering.tally import Tally
from comity.tensors import Layout
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.client import PeerPort
from comity.transport.calls import BlobField, Stream, Unary, Waiting
from comity.transport.service import Service
from comity.wire.v1 import learning_to_help_pb2 as pb


def _rejector(client: PeerContext) -> Layout:
    layout: Layout = client.task.layouts[REJECTOR]
    return layout


def _server(client: PeerContext) -> Layout:
    layout: Layout = client.task.layouts[SERVER]
    return layout


LEARN = Waiting(
    method="Learn",
    handle=lambda server, _, *model: server.learn(*model),
    uploads=(BlobField("local_model", "local"),),
    downloads=(BlobField("checkpoint", "rejector", layout=_rejector),),
    cancels=True,
)
COPY = Waiting(
    method="Copy",
    handle=lambda server, _, index: server.copy(index),
    downloads=(BlobField("checkpoint", "server", layout=_server),),
    cancels=True,
)
ACKNOWLEDGE = Unary(method="AcknowledgeModel", handle=lambda server, _, copy: server.acknowledge(copy), delivers=True)


def _ask(server: Server, _: PeerContext, *asked: Any) -> Future[Any]:
    *question, _withdrawn = asked
    return server.ask(*question)


ASK = Waiting(method="Ask", handle=_ask, cancels=True, metered=True)
CONVERSE = Stream(
    method="Converse",
    handle=_ask,
    key=lambda message: message.first,
    most=128,
    metered=True,
    withdraw=lambda request: pb.AskRequest(first=request.first, count=request.count, withdrawn=True),
    is_withdrawal=lambda request: request.withdrawn,
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

    def learn(self, local: bytes, minimum: float, maximum: float) -> Future[bytes | None]:
        """See `Helping.learn`."""
        return self._ask(LEARN, local, minimum, maximum)

    def copy(self, index: int) -> Future[bytes]:
        """See `Helping.copy`."""
        return self._ask(COPY, index)

    def acknowledge(self, copy: int) -> None:
        """See `Helping.acknowledge`."""
        self._call(ACKNOWLEDGE, copy)

    def ask(self, first: int, count: int, features: bytes, within_ms: int) -> Future[Any]:
        """See `Helping.ask`; on one stream."""
        return self._ask(CONVERSE, first, count, features, within_ms, False)

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
    (LEARN, COPY, ACKNOWLEDGE, ASK, CONVERSE, TALLY, SETTLE),
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
    """Most that a party keeps at a time: the models that it has to do with, and what trainings go on from."""
    del peer
    terms = helping_terms(contract)
    size = {name: each.size for name, each in task.layouts.items()}
    match terms.training, own.role:
        case "client", "server":
            # All copies, where the client is away; and what AdamW and a leak guard go by, twice while one is replaced.
            copies = copies_of(own.samples, terms)
            return size[LOCAL] + (copies + 6) * size[SERVER] + 2 * task.guard_space(own.samples)
        case "client", _:
            return size[LOCAL] + 6 * size[REJECTOR] + 2 * size[SERVER]
        case _, "server":
            return sum(size.values())
        case _:
            return size[LOCAL] + size[REJECTOR]


def _training_plan(contract: Contract, own: Membership, settings: Any) -> TrainingPlan | None:
    """What of a server's training leaves: the rejector, once, or copies of the classifier; nothing of a client's is judged."""
    del settings
    terms = helping_terms(contract)
    if own.role != "server" or not own.samples or terms.training == "predictions":
        return None
    if terms.training == "client":
        steps = Fitting(terms.server_epochs, terms.batch_size).steps(own.samples)
        return TrainingPlan(
            terms.batch_size,
            min(terms.copy_every, steps),
            steps,
            "adam",
            terms.learning_rate,
            is_private=False,
            steps_term="copy_every",
            leaving=(SERVER,),
        )
    steps = Fitting(terms.rejector_epochs, terms.batch_size).steps(own.samples)
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
    task=HelpTaskBuilder(),
    disk_space=_disk_space,
    initiator=_initiator,
    acceptor=_acceptor,
    judged=("checkpoint",),
    training_plan=_training_plan,
    comparing=COMPARING,
)
