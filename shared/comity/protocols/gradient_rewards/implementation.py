"""Gradient rewards' roles, messages and task, as nodes run them."""

from __future__ import annotations

from collections.abc import Sequence

from comity.contract import Contract, Membership
from comity.protocol.implementation import Implementation
from comity.protocols.gradient_rewards.client import Client
from comity.protocols.gradient_rewards.in_process import InProcessServer
from comity.protocols.gradient_rewards.remote import RemoteServer
from comity.protocols.gradient_rewards.report import merged
from comity.protocols.gradient_rewards.server import Server
from comity.protocols.gradient_rewards.servicer import SERVICE, serve
from comity.protocols.gradient_rewards.task import TASK
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.session.contexts import PeerContext, SessionContext
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import gradient_rewards_pb2


def _help(place: SessionContext, contexts: Sequence[PeerContext]) -> Server:
    return Server(place, contexts)


def _ask(servers: Sequence[tuple[PeerContext, PeerConnection]]) -> Client:
    ((context, connection),) = servers
    return Client(context, RemoteServer(connection, _parameters(context), context.blobs, context.gate))


def _ask_in_process(servers: Sequence[tuple[PeerContext, PeerContext, Server]]) -> Client:
    ((context, other, server),) = servers
    return Client(context, InProcessServer(context, other, server, _parameters(context)))


def _parameters(context: PeerContext) -> int:
    task = context.task
    return sum(task.initial_state[name].numel() for name in task.parameters)


def _blobs_held(contract: Contract, own: Membership, peer: Membership) -> int:  # noqa: ARG001
    """At a client, two models, an update and a reward; at the server, an update and a reward of each client."""
    terms = contract.terms
    clients = terms.clients if isinstance(terms, GradientRewardsTerms) and own.role == "server" else 1
    return 2 + 2 * clients


IMPLEMENTATION = Implementation(
    terms_message=gradient_rewards_pb2.GradientRewardsTerms,
    task=TASK,
    blobs_held=_blobs_held,
    help=_help,
    ask=_ask,
    ask_in_process=_ask_in_process,
    serve=serve,
    services=(SERVICE,),
    merge=merged,
)
