"""Assisted learning: Chen et al., "Assisted Learning for Organizations with Limited Imbalanced Data", TMLR 2023."""

from collections.abc import Sequence

from comity.contract import Contract, Membership
from comity.protocols.assisted_learning.algorithm import sampled_iterations, split_iterations
from comity.protocols.assisted_learning.carried import CARRIAGE
from comity.protocols.assisted_learning.in_process import InProcessProvider
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import AssistedLearningTerms
from comity.protocols.assisted_learning.party import Party, session_steps
from comity.protocols.assisted_learning.provider import Provider
from comity.protocols.assisted_learning.remote import RemoteProvider
from comity.protocols.assisted_learning.servicer import PROTOCOL_NAME, SERVICE, serve
from comity.session.events import Column, Summary, View
from comity.session.seat import Place, Seat
from comity.transport.link import Link
from comity.transport.protocol import ProtocolDefinition
from comity.wire.v1 import assisted_learning_pb2

__all__ = ["PROTOCOL"]


def _party(seat: Seat) -> Party:
    return Party(seat.task, seat.blobs, seat.journal, seat.contract, seat.own, seat.peer)


def _help(place: Place, seats: Sequence[Seat]) -> Provider:
    (seat,) = seats
    return Provider(_party(seat), seat.notary, place.observe)


def _ask(helpers: Sequence[tuple[Seat, Link]]) -> Learner:
    ((seat, link),) = helpers
    remote = RemoteProvider(link, seat.task.layout, seat.blobs, seat.gate)
    return Learner(_party(seat), remote, seat.notary, seat.observe)


def _ask_in_process(helpers: Sequence[tuple[Seat, Seat, Provider]]) -> Learner:
    ((seat, helper, provider),) = helpers
    return Learner(_party(seat), InProcessProvider(seat, helper, provider), seat.notary, seat.observe)


def _blobs_held(contract: Contract, own: Membership, peer: Membership) -> int:
    """Both trajectories of a round, what was picked before, and two states of an optimiser with two moments."""
    terms = contract.terms
    if not isinstance(terms, AssistedLearningTerms):
        return 0
    samples = {own.role: own.samples, peer.role: peer.samples}
    parts = split_iterations(terms.iterations, samples["learner"], samples["provider"])
    return sum(len(sampled_iterations(part, terms.sampling_period)) for part in parts) + 2 + 4


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

PROTOCOL = ProtocolDefinition(
    name=PROTOCOL_NAME,
    version=1,
    asker="learner",
    helper="provider",
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
    blobs_held=_blobs_held,
    steps=session_steps,
    carriage=CARRIAGE,
)
"""How nodes run it."""
