"""Both protocols' roles, messages and task."""

from __future__ import annotations

from collections.abc import Sequence

from comity.contract import Contract, Membership
from comity.protocol.implementation import Implementation
from comity.session.contexts import PeerContext, SessionContext
from teacher_votes import calls, pooling, questions, teaching
from teacher_votes.voting import Voter, VotingTask


def _teacher(session: SessionContext, contexts: Sequence[PeerContext]) -> teaching.Teacher:
    (context,) = contexts
    return teaching.Teacher(session, context)


def _client(contexts: Sequence[PeerContext], ports: Sequence[pooling.Pooling]) -> pooling.Client:
    (context,), (port,) = contexts, ports
    return pooling.Client(context, port)


def _oracle(session: SessionContext, contexts: Sequence[PeerContext]) -> questions.Oracle:
    (context,) = contexts
    return questions.Oracle(session, context)


def _inquirer(contexts: Sequence[PeerContext], ports: Sequence[questions.Questioning]) -> questions.Inquirer:
    (context,), (port,) = contexts, ports
    return questions.Inquirer(context, port)


def _disk_space(contract: Contract, own: Membership, peer: Membership, task: Voter) -> int:
    return 2 * task.layout.size


TEACHING = Implementation(
    service=calls.TEACHING,
    task=VotingTask(),
    initiator=teaching.Student,
    acceptor=_teacher,
    disk_space=_disk_space,
)

POOLING = Implementation(
    service=calls.POOLING,
    task=VotingTask(),
    initiator=_client,
    acceptor=pooling.Server,
)

QUESTIONS = Implementation(
    service=calls.QUESTIONING,
    task=VotingTask(),
    initiator=_inquirer,
    acceptor=_oracle,
)
