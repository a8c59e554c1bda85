"""Assisted learning's roles, messages and task, as nodes run them."""

from __future__ import annotations

from collections.abc import Sequence

from comity.contract import Contract, Membership
from comity.protocol.implementation import Implementation, PrivateTraining
from comity.protocols.assisted_learning.carried import CARRIAGE
from comity.protocols.assisted_learning.extensions import Settings
from comity.protocols.assisted_learning.in_process import InProcessProvider
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Assistance
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.protocols.assisted_learning.remote import RemoteProvider
from comity.protocols.assisted_learning.schedule import Schedule
from comity.protocols.assisted_learning.servicer import SERVICE, serve
from comity.protocols.assisted_learning.task import TASK
from comity.session.seat import Place, Seat
from comity.training import sampling_rate
from comity.transport.link import Link
from comity.wire.v1 import assisted_learning_pb2


def _party(seats: Sequence[Seat]) -> Party:
    one = seats[0]
    peers = [seat.peer for seat in seats]
    ahead = isinstance(one.settings, Settings) and one.settings.speculative
    return Party(one.task, one.blobs, one.journal, one.contract, one.own, *peers, works_ahead=ahead)


def _help(place: Place, seats: Sequence[Seat]) -> Provider:
    (seat,) = seats
    return Provider(_party(seats), seat.notary, place.observe)


def _ask(helpers: Sequence[tuple[Seat, Link]]) -> Learner:
    seats = [seat for seat, _ in helpers]
    party = _party(seats)
    ports = [RemoteProvider(link, party.task.layout, seat.blobs, seat.gate, party.encoding) for seat, link in helpers]
    return _learner(party, seats, ports)


def _ask_in_process(helpers: Sequence[tuple[Seat, Seat, Provider]]) -> Learner:
    seats = [seat for seat, _, _ in helpers]
    return _learner(_party(seats), seats, [InProcessProvider(*helper) for helper in helpers])


def _learner(party: Party, seats: Sequence[Seat], ports: Sequence[Assistance]) -> Learner:
    notaries = [seat.notary for seat in seats]
    return Learner(party, list(zip(ports, notaries, strict=True)), seats[0].observe)


def _blobs_held(contract: Contract, own: Membership, peer: Membership) -> int:
    return Schedule(contract, own, [peer]).blobs_held()


def _private_training(contract: Contract, own: Membership, peers: Sequence[Membership]) -> PrivateTraining | None:
    schedule = Schedule(contract, own, peers)
    terms = schedule.terms
    if terms.privacy is None or own.samples == 0:
        return None
    return PrivateTraining(terms.privacy, sampling_rate(own.samples, terms.batch_size), schedule.steps())


IMPLEMENTATION = Implementation(
    terms_message=assisted_learning_pb2.AssistedLearningTerms,
    task=TASK,
    blobs_held=_blobs_held,
    help=_help,
    ask=_ask,
    ask_in_process=_ask_in_process,
    serve=serve,
    services=(SERVICE,),
    private_training=_private_training,
    carriage=CARRIAGE,
)
