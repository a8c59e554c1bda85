"""Assisted learning: Chen et al., "Assisted Learning for Organizations with Limited Imbalanced Data", TMLR 2023."""

from comity.protocols.assisted_learning.in_process import InProcessProvider
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import AssistedLearningTerms
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.protocols.assisted_learning.remote import RemoteProvider
from comity.protocols.assisted_learning.servicer import PROTOCOL_NAME, SERVICE, serve
from comity.transport.link import Link
from comity.transport.protocol import ProtocolDefinition, Seat
from comity.wire.v1 import assisted_learning_pb2

__all__ = ["PROTOCOL"]


def _party(seat: Seat) -> Party:
    return Party(seat.task, seat.blobs, seat.contract, seat.own, seat.peer)


def _help(seat: Seat) -> Provider:
    return Provider(_party(seat), seat.observe)


def _ask(seat: Seat, link: Link) -> Learner:
    remote = RemoteProvider(link, seat.task.layout, seat.blobs, seat.gate)
    return Learner(_party(seat), remote, seat.observe)


def _ask_in_process(seat: Seat, helper: Seat, provider: Provider) -> Learner:
    return Learner(_party(seat), InProcessProvider(seat, helper, provider), seat.observe)


PROTOCOL = ProtocolDefinition(
    name=PROTOCOL_NAME,
    version=1,
    asker="learner",
    helper="provider",
    egress=("contract", "loss", "checkpoint"),
    terms=AssistedLearningTerms,
    terms_message=assisted_learning_pb2.AssistedLearningTerms,
    help=_help,
    ask=_ask,
    ask_in_process=_ask_in_process,
    serve=serve,
    services=(SERVICE,),
)
"""How nodes run it."""
