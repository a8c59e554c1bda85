"""Incoming calls to the server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import grpc

from comity.protocols.gradient_rewards import codec
from comity.protocols.gradient_rewards.definition import NAME
from comity.protocols.gradient_rewards.server import Server
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.transport.blobs import digest_in
from comity.transport.sessions import session_of
from comity.wire.v1 import gradient_rewards_pb2 as pb
from comity.wire.v1 import gradient_rewards_pb2_grpc, sessions_pb2

SERVICE = pb.DESCRIPTOR.services_by_name["GradientRewards"].full_name


class GradientRewardsServicer(gradient_rewards_pb2_grpc.GradientRewardsServicer):
    """Brings calls to the server of the session that they belong to.

    Args:
        sessions: The node's sessions.
    """

    def __init__(self, sessions: SessionRegistry) -> None:
        self._sessions = sessions

    def WatchRounds(self, request: pb.WatchRoundsRequest, context: grpc.ServicerContext) -> Iterator[pb.RoundNews]:  # noqa: N802
        """Gives a client the news of rounds, with its own rewards."""
        session, server = self._find(context)
        party = session.context.peer.party

        def is_active() -> bool:
            return context.is_active() and not session.stopping.is_set()

        done, told = request.after, None
        for _ in server.changes.watch(is_active=is_active):
            while True:
                news = session.worker.call(partial(server.news, party, done))
                if news is None or news == told:
                    break
                message = codec.news_to_proto(news)
                if news.reward is not None:
                    session.gate.intend("reward", "statement", message.ByteSize(), round=news.round)
                    done = news.round
                told = news
                yield message
                if news.kind == "over":
                    return
        session.require_running()

    def Submit(self, request: pb.SubmitRequest, context: grpc.ServicerContext) -> pb.SubmitReply:  # noqa: N802
        """Takes an update whose blob is here already."""
        session, server = self._find(context)
        update = digest_in(request.update)
        session.worker.call(lambda: server.submit(session.context.peer.party, request.round, update))
        return pb.SubmitReply()

    def Confirm(self, request: pb.ConfirmRequest, context: grpc.ServicerContext) -> sessions_pb2.SignedStatement:  # noqa: N802
        """Takes a client's signature for its update, and gives the receipt."""
        session, server = self._find(context)
        signed = statement_from_proto(request.request)
        receipt = session.worker.call(lambda: server.confirm(session.context.peer.party, request.round, signed))
        return statement_to_proto(receipt)

    def AcknowledgeReward(  # noqa: N802
        self, request: pb.AcknowledgeRewardRequest, context: grpc.ServicerContext
    ) -> pb.AcknowledgeRewardReply:
        """Takes a client's word that it has its reward."""
        session, server = self._find(context)
        signed = statement_from_proto(request.acknowledgement)

        def take() -> None:
            server.acknowledge(session.context.peer.party, request.round, signed)
            session.gate.deliver_all(request.round)

        session.worker.call(take)
        return pb.AcknowledgeRewardReply()

    def _find(self, context: grpc.ServicerContext) -> tuple[AcceptedSession, Server]:
        session = session_of(self._sessions, context, NAME)
        server: Server = session.role
        return session, server


def serve(server: grpc.Server, sessions: SessionRegistry) -> None:
    """Registers the service."""
    gradient_rewards_pb2_grpc.add_GradientRewardsServicer_to_server(GradientRewardsServicer(sessions), server)
