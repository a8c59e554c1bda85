"""The calls of gradient rewards, each once: what a client asks of the server; and who makes and who takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comity.protocol.implementation import Implementation
from comity.protocols.gradient_rewards import codec
from comity.protocols.gradient_rewards.client import Client
from comity.protocols.gradient_rewards.messages import Reward, RewardDetails, Rewarding
from comity.protocols.gradient_rewards.report import merged
from comity.protocols.gradient_rewards.server import Server
from comity.protocols.gradient_rewards.task import TASK, disk_space, private_training, training_plan
from comity.session.contexts import PeerContext, SessionContext
from comity.tensors import Blob, sparse
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.gathering import GatheringCalls, GatheringPort
from comity.transport.calls import Service
from comity.wire.v1 import gradient_rewards_pb2 as pb

_CALLS = GatheringCalls(submits="update", answers="reward", field="reward")


class ServerPort(GatheringPort[RewardDetails]):
    """Implements `Rewarding`.

    Args:
        context: The client's context opposite the server.
        channel: The way to the server.
    """

    def __init__(self, context: PeerContext, channel: Channel) -> None:
        super().__init__(SERVICE, _CALLS, context, channel)
        task: Any = context.task
        self._parameters = sum(task.initial_state[name].numel() for name in task.parameters)

    def _require_fitting(self, answer: Reward) -> None:
        codec.require_fitting(answer, self._parameters)

    def _size_of(self, details: RewardDetails) -> int:
        return details.size

    def _verify(self, blob: Blob) -> None:
        sparse.decode(blob.data, self._parameters)


SERVICE = Service(
    pb.DESCRIPTOR.services_by_name["GradientRewards"],
    _CALLS.all,
    client=ServerPort,
    converters={pb.RoundNews: (codec.news_to_proto, codec.news_from_proto)},
    terms=pb.GradientRewardsTerms,
)


def _initiator(contexts: Sequence[PeerContext], ports: Sequence[Rewarding]) -> Client:
    (context,), (port,) = contexts, ports
    return Client(context, port)


def _acceptor(session: SessionContext, contexts: Sequence[PeerContext]) -> Server:
    return Server(session, contexts)


IMPLEMENTATION = Implementation(
    service=SERVICE,
    task=TASK,
    disk_space=disk_space,
    initiator=_initiator,
    acceptor=_acceptor,
    merge=merged,
    private_training=private_training,
    judged=("update",),
    training_plan=training_plan,
)
