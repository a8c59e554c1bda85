"""Gradient rewards' roles, messages and task, as nodes run them."""

from __future__ import annotations

from collections.abc import Sequence

from comity.contract import Contract, Membership
from comity.protocol.implementation import Implementation
from comity.protocols.gradient_rewards.calls import SERVICE
from comity.protocols.gradient_rewards.client import Client
from comity.protocols.gradient_rewards.messages import Rewarding
from comity.protocols.gradient_rewards.report import merged
from comity.protocols.gradient_rewards.server import Server
from comity.protocols.gradient_rewards.task import TASK
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.session.contexts import PeerContext, SessionContext
from comity.training import Classification
from comity.wire.v1 import gradient_rewards_pb2


def _initiator(contexts: Sequence[PeerContext], ports: Sequence[Rewarding]) -> Client:
    (context,), (port,) = contexts, ports
    return Client(context, port)


def _acceptor(session: SessionContext, contexts: Sequence[PeerContext]) -> Server:
    return Server(session, contexts)


def _disk_space(contract: Contract, own: Membership, peer: Membership, task: Classification) -> int:  # noqa: ARG001
    """At a client, two models, an update and a reward; at the server, an update and a reward of each client."""
    terms = contract.terms
    clients = terms.clients if isinstance(terms, GradientRewardsTerms) and own.role == "server" else 1
    return (2 + 2 * clients) * task.layout.size


IMPLEMENTATION = Implementation(
    terms_message=gradient_rewards_pb2.GradientRewardsTerms,
    service=SERVICE,
    task=TASK,
    initiator=_initiator,
    acceptor=_acceptor,
    disk_space=_disk_space,
    merge=merged,
)
