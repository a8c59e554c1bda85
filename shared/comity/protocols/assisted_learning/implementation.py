"""Assisted learning's roles, messages and task, as nodes run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comity.contract import Contract, Membership
from comity.protocol.implementation import Implementation, PrivateTraining
from comity.protocols.assisted_learning.calls import SERVICE
from comity.protocols.assisted_learning.extensions import Settings
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Assistance
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.protocols.assisted_learning.schedule import Schedule
from comity.protocols.assisted_learning.task import TASK
from comity.session.contexts import PeerContext, SessionContext
from comity.training import sampling_rate
from comity.wire.v1 import assisted_learning_pb2


def _party(contexts: Sequence[PeerContext]) -> Party:
    one = contexts[0]
    peers = [context.peer for context in contexts]
    ahead = isinstance(one.settings, Settings) and one.settings.speculative
    return Party(one.task, one.blobs, one.journal, one.contract, one.own, *peers, works_ahead=ahead)


def _initiator(contexts: Sequence[PeerContext], ports: Sequence[Assistance]) -> Learner:
    receipt_books = [context.receipt_book for context in contexts]
    return Learner(_party(contexts), list(zip(ports, receipt_books, strict=True)), contexts[0].observe)


def _acceptor(session: SessionContext, contexts: Sequence[PeerContext]) -> Provider:
    (context,) = contexts
    return Provider(_party(contexts), context.receipt_book, session.observe)


def _disk_space(contract: Contract, own: Membership, peer: Membership, task: Any) -> int:
    held: int = Schedule(contract, own, [peer]).blobs_held() * task.layout.size
    return held


def _private_training(contract: Contract, own: Membership, peers: Sequence[Membership]) -> PrivateTraining | None:
    schedule = Schedule(contract, own, peers)
    terms = schedule.terms
    if terms.privacy is None or own.samples == 0:
        return None
    return PrivateTraining(terms.privacy, sampling_rate(own.samples, terms.batch_size), schedule.steps())


IMPLEMENTATION = Implementation(
    terms_message=assisted_learning_pb2.AssistedLearningTerms,
    service=SERVICE,
    task=TASK,
    initiator=_initiator,
    acceptor=_acceptor,
    disk_space=_disk_space,
    private_training=_private_training,
)
