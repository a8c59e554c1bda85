"""Gradient rewards: Xu et al., "Gradient-Driven Rewards to Guarantee Fairness in Collaborative Machine Learning" (2021)."""

from collections.abc import Sequence

from comity.contract import Contract, Membership
from comity.protocols.gradient_rewards.algorithm import Mechanism, RoundResult, ServerState, aggregate, aggregate_round
from comity.protocols.gradient_rewards.client import Client
from comity.protocols.gradient_rewards.contribution import (
    MOST_CLIENTS,
    cosine_contribution,
    cosine_gradient_shapley,
    sampled_cosine_gradient_shapley,
)
from comity.protocols.gradient_rewards.in_process import InProcessServer
from comity.protocols.gradient_rewards.inner_products import cosines_with, gram
from comity.protocols.gradient_rewards.messages import NAME, GradientRewardsTerms
from comity.protocols.gradient_rewards.remote import RemoteServer
from comity.protocols.gradient_rewards.report import merged
from comity.protocols.gradient_rewards.rewards import (
    Rule,
    SparseUpdate,
    normalize_update,
    reward_fractions,
    sparsify,
    sparsify_for_all,
    update_importance,
)
from comity.protocols.gradient_rewards.server import Server
from comity.protocols.gradient_rewards.servicer import SERVICE, serve
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Column, Statement, Summary
from comity.transport.peer_connection import PeerConnection
from comity.transport.protocol import ProtocolDefinition
from comity.wire.v1 import gradient_rewards_pb2

__all__ = [
    "MOST_CLIENTS",
    "PROTOCOL",
    "Mechanism",
    "RoundResult",
    "Rule",
    "ServerState",
    "SparseUpdate",
    "aggregate",
    "aggregate_round",
    "cosine_contribution",
    "cosine_gradient_shapley",
    "cosines_with",
    "gram",
    "normalize_update",
    "reward_fractions",
    "sampled_cosine_gradient_shapley",
    "sparsify",
    "sparsify_for_all",
    "update_importance",
]


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


PROTOCOL = ProtocolDefinition(
    name=NAME,
    version=1,
    initiator="client",
    acceptor="server",
    many=True,
    egress=("contract", "update", "reward"),
    terms=GradientRewardsTerms,
    terms_message=gradient_rewards_pb2.GradientRewardsTerms,
    trains=frozenset({"client"}),
    help=_help,
    ask=_ask,
    ask_in_process=_ask_in_process,
    serve=serve,
    services=(SERVICE,),
    columns={
        "client": (
            Column("contribution", "contribution", "number"),
            Column("importance", "importance", "number"),
            Column("fraction", "gets of it", "share"),
            Column("test_accuracy", "test accuracy", "share"),
            Column("seconds", "seconds", "seconds"),
        ),
        "server": (
            Column("participants", "clients", "integer"),
            Column("test_accuracy", "server's accuracy", "share"),
            Column("server_seconds", "server's work", "seconds"),
            Column("seconds", "seconds", "seconds"),
        ),
    },
    summary=Summary(
        "test accuracy",
        (
            Column("alone_mean", "clients alone, mean", "share"),
            Column("together_mean", "clients together, mean", "share"),
            Column("server_accuracy", "the server's model", "share"),
        ),
        outcome="together_mean",
    ),
    statement=Statement(
        "rewards",
        (
            Column("contribution_by_round", "contribution", "number"),
            Column("importance_by_round", "importance", "number"),
            Column("fraction_by_round", "gets of it", "share"),
            Column("bytes_by_round", "bytes", "integer"),
        ),
        parties="clients",
    ),
    merge=merged,
    blobs_held=_blobs_held,
)
"""How nodes run it."""
