"""The calls of gradient rewards, each once: what a client asks of the server; and who makes and who takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from comity.contract import Release
from comity.errors import MalformedMessage
from comity.ledger.ledger import in_round
from comity.ledger.receipts import SignedStatement
from comity.protocol.implementation import Implementation
from comity.protocols.gradient_rewards import codec
from comity.protocols.gradient_rewards.alone import COMPARING
from comity.protocols.gradient_rewards.client import Client
from comity.protocols.gradient_rewards.messages import News, Reward, Rewarding
from comity.protocols.gradient_rewards.report import merged
from comity.protocols.gradient_rewards.server import Server
from comity.protocols.gradient_rewards.task import TASK, disk_space, private_training, training_plan
from comity.session.contexts import PeerContext, SessionContext
from comity.tensors import Blob, sparse
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.client import PeerPort
from comity.transport.calls import BlobField, Service, Unary, Watch
from comity.wire.v1 import gradient_rewards_pb2 as pb


def _resume(request: pb.WatchRoundsRequest, news: pb.RoundNews) -> None:
    if news.HasField("reward"):
        request.after = max(request.after, news.reward.round)


WATCH_ROUNDS = Watch(
    method="WatchRounds",
    handle=lambda server, client, after: server.follow(client.peer.party, after),
    resume=_resume,
)
SUBMIT = Unary(
    method="Submit",
    handle=lambda server, client, round, update, release: server.submit(client.peer.party, round, update, release),
    uploads=(BlobField("update", "update"),),
)
SIT_OUT = Unary(method="SitOut", handle=lambda server, client, round: server.sit_out(client.peer.party, round))
CONFIRM = Unary(
    method="Confirm", handle=lambda server, client, round, request: server.confirm(client.peer.party, round, request)
)
ACKNOWLEDGE = Unary(
    method="AcknowledgeReward",
    handle=lambda server, client, round, signed: server.acknowledge(client.peer.party, round, signed),
    delivers=True,
)


class ServerPort(PeerPort):
    """Implements `Rewarding`.

    Args:
        context: The client's context opposite the server.
        channel: The way to the server.
    """

    def __init__(self, context: PeerContext, channel: Channel) -> None:
        super().__init__(SERVICE, context, channel)
        task: Any = context.task
        self._parameters = sum(task.initial_state[name].numel() for name in task.parameters)

    def news(self, after: int) -> Iterator[News | None]:
        """See `Rewarding.news`."""
        done = after
        for news in self._watch(WATCH_ROUNDS, after):
            if news is not None and news.reward is not None:
                codec.require_fitting(news.reward, self._parameters)
                done = news.round
            yield news
            if news is not None and news.kind == "over":
                return
        raise MalformedMessage(
            "the server's news ended before the session",
            expected="an end",
            received=f"nothing after round {done}",
            action="ask the server's operator what happened",
        )

    def submit(self, round: int, update: bytes, release: Release) -> None:
        """See `Rewarding.submit`."""
        self._call(SUBMIT, round, update, release)

    def sit_out(self, round: int) -> None:
        """See `Rewarding.sit_out`."""
        self._call(SIT_OUT, round)

    def confirm(self, round: int, request: SignedStatement) -> SignedStatement:
        """See `Rewarding.confirm`."""
        signed: SignedStatement = self._call(CONFIRM, round, request)
        return signed

    def fetch(self, reward: Reward) -> bytes:
        """See `Rewarding.fetch`."""
        terms = reward.details

        def verify(blob: Blob) -> None:
            sparse.decode(blob.data, self._parameters)

        return bytes(self._fetch(terms.entries, terms.size, "reward", in_round(terms.round), verify).data)

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Rewarding.acknowledge`."""
        self._call(ACKNOWLEDGE, round, acknowledgement)


SERVICE = Service(
    pb.DESCRIPTOR.services_by_name["GradientRewards"],
    (WATCH_ROUNDS, SUBMIT, SIT_OUT, CONFIRM, ACKNOWLEDGE),
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
    comparing=COMPARING,
)
