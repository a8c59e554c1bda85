"""Assisted learning: Chen et al., "Assisted Learning for Organizations with Limited Imbalanced Data", TMLR 2023."""

from collections.abc import Sequence
from dataclasses import replace

from comity.contract import Contract, Membership
from comity.protocols.assisted_learning.in_process import InProcessProvider
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Assistance, AssistedLearningTerms
from comity.protocols.assisted_learning.offline import OFFLINE
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.protocols.assisted_learning.remote import RemoteProvider
from comity.protocols.assisted_learning.report import pick_field
from comity.protocols.assisted_learning.schedule import Schedule
from comity.protocols.assisted_learning.servicer import PROTOCOL_NAME, SERVICE, serve
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Column, Statement, Summary, View
from comity.transport.peer_connection import PeerConnection
from comity.transport.protocol import ProtocolDefinition
from comity.wire.v1 import assisted_learning_pb2

__all__ = ["PROTOCOL"]


def _party(contexts: Sequence[PeerContext]) -> Party:
    one = contexts[0]
    peers = [context.peer for context in contexts]
    return Party(one.task, one.blobs, one.journal, one.contract, one.own, *peers, works_ahead=one.works_ahead)


def _help(place: SessionContext, contexts: Sequence[PeerContext]) -> Provider:
    (context,) = contexts
    return Provider(_party(contexts), context.receipt_book, place.observe)


def _ask(acceptors: Sequence[tuple[PeerContext, PeerConnection]]) -> Learner:
    contexts = [context for context, _ in acceptors]
    party = _party(contexts)
    ports = [
        RemoteProvider(connection, party.task.layout, context.blobs, context.gate, party.encoding)
        for context, connection in acceptors
    ]
    return _learner(party, contexts, ports)


def _ask_in_process(acceptors: Sequence[tuple[PeerContext, PeerContext, Provider]]) -> Learner:
    contexts = [context for context, _, _ in acceptors]
    return _learner(_party(contexts), contexts, [InProcessProvider(*acceptor) for acceptor in acceptors])


def _learner(party: Party, contexts: Sequence[PeerContext], ports: Sequence[Assistance]) -> Learner:
    receipt_books = [context.receipt_book for context in contexts]
    return Learner(party, list(zip(ports, receipt_books, strict=True)), contexts[0].observe)


def _blobs_held(contract: Contract, own: Membership, peer: Membership) -> int:
    return Schedule(contract, own, [peer]).blobs_held()


def _steps(contract: Contract, own: Membership, peers: Sequence[Membership]) -> int:
    return Schedule(contract, own, peers).steps()


_PICKS = (
    Column("provider_pick", "provider's pick", "integer"),
    Column("learner_pick", "learner's pick", "integer"),
)
_SECONDS = Column("seconds", "seconds", "seconds")
_GLOBAL_LOSS = Column("global_loss", "global loss", "number")
_GLOBAL_RETURN = Column("global_return", "global return", "number")

_POLICIES = View(
    columns={
        "learner": (*_PICKS, _GLOBAL_RETURN, Column("test_return", "test return", "number"), _SECONDS),
        "provider": (_PICKS[0], _GLOBAL_RETURN, _SECONDS),
    },
    summary=Summary(
        "test return",
        (
            Column("learner_alone", "learner alone", "number"),
            Column("assisted", "assisted", "number"),
            Column("pooled", "games pooled", "number"),
        ),
        outcome="assisted",
    ),
)


def _adapted(contract: Contract, view: View) -> View:
    """A view for several providers: each one's pick, and at a provider how much it was asked."""
    if len(contract.acceptors) == 1:
        return view
    picks = [Column(pick_field(name), f"{name}'s pick", "integer") for name in contract.acceptors]
    learner, provider = view.columns["learner"], view.columns["provider"]
    asked = Column("assessed", "models assessed", "integer")
    return replace(view, columns={"learner": (*picks, *learner[1:]), "provider": (provider[0], asked, *provider[1:])})


PROTOCOL = ProtocolDefinition(
    name=PROTOCOL_NAME,
    version=1,
    initiator="learner",
    acceptor="provider",
    egress=("contract", "loss", "checkpoint"),
    terms=AssistedLearningTerms,
    terms_message=assisted_learning_pb2.AssistedLearningTerms,
    trains=frozenset({"learner", "provider"}),
    help=_help,
    ask=_ask,
    ask_in_process=_ask_in_process,
    serve=serve,
    services=(SERVICE,),
    columns={
        "learner": (*_PICKS, _GLOBAL_LOSS, Column("test_accuracy", "test accuracy", "share"), _SECONDS),
        "provider": (_PICKS[0], _GLOBAL_LOSS, _SECONDS),
    },
    summary=Summary(
        "test accuracy",
        (
            Column("learner_alone", "learner alone", "share"),
            Column("provider_alone", "provider alone", "share"),
            Column("assisted", "assisted", "share"),
            Column("pooled", "data pooled", "share"),
        ),
        outcome="assisted",
    ),
    views={"reinforcement": _POLICIES},
    adapt=_adapted,
    several=True,
    statement=Statement(
        "what each provider's help changed",
        (
            Column("pick_by_round", "began with", "integer"),
            Column("loss_before_by_round", "global loss before", "number"),
            Column("loss_after_by_round", "after", "number"),
            Column("loss_change_by_round", "change", "number"),
            Column("test_before_by_round", "test before", "share"),
            Column("test_after_by_round", "after", "share"),
            Column("test_change_by_round", "change", "share"),
        ),
        parties="providers",
        sums={"loss_change_by_round": "loss_change", "test_change_by_round": "test_change"},
    ),
    blobs_held=_blobs_held,
    steps=_steps,
    offline=OFFLINE,
)
"""How nodes run it."""
