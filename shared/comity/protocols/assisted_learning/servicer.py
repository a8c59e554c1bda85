"""Incoming calls to the provider."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from comity.errors import MalformedMessage
from comity.protocols.assisted_learning import codec
from comity.protocols.assisted_learning.definition import NAME
from comity.protocols.assisted_learning.messages import assessment_subject, delta_base
from comity.protocols.assisted_learning.provider import Provider
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.transport.blobs import digest_in
from comity.transport.sessions import session_of
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import assisted_learning_pb2_grpc, sessions_pb2

SERVICE = pb.DESCRIPTOR.services_by_name["AssistedLearning"].full_name


class AssistedLearningServicer(assisted_learning_pb2_grpc.AssistedLearningServicer):
    """Brings calls to the provider of the session that they belong to.

    Args:
        sessions: The node's sessions.
    """

    def __init__(self, sessions: SessionRegistry) -> None:
        self._sessions = sessions

    def Assess(self, request: pb.AssessRequest, context: grpc.ServicerContext) -> Iterator[pb.Assessment]:  # noqa: N802
        """Says this party's loss on a model whose blob is here already."""
        session = self._find(context)
        provider = provider_of(session)
        digest = digest_in(request.blob)
        loss = session.worker.call(lambda: provider.assess(request.round, digest)).result()
        answer = pb.Assessment(loss=codec.loss_to_proto(loss))
        session.gate.intend("loss", assessment_subject(digest), answer.ByteSize(), round=request.round)
        yield answer

    def Offer(self, request: pb.OfferRequest, context: grpc.ServicerContext) -> pb.OfferReply:  # noqa: N802
        """Takes a checkpoint whose blob is here already."""
        take_offer(self._find(context), request)
        return pb.OfferReply()

    def CloseRound(self, request: pb.CloseRoundRequest, context: grpc.ServicerContext) -> sessions_pb2.SignedStatement:  # noqa: N802
        """Ends the learner's part of a round."""
        return take_close(self._find(context), request)

    def Acknowledge(self, request: pb.AcknowledgeRequest, context: grpc.ServicerContext) -> pb.AcknowledgeReply:  # noqa: N802
        """Takes the learner's word that it has the whole trajectory."""
        take_acknowledgement(self._find(context), request)
        return pb.AcknowledgeReply()

    def WatchResults(self, request: pb.WatchResultsRequest, context: grpc.ServicerContext) -> Iterator[pb.Result]:  # noqa: N802
        """Gives the provider's trajectory as it is made."""
        session = self._find(context)
        provider = provider_of(session)
        trajectory = session.worker.call(lambda: provider.trajectory(request.round))

        def is_active() -> bool:
            return context.is_active() and not session.stopping.is_set()

        for checkpoint in trajectory.watch(request.skip, is_active=is_active):
            before = trajectory[checkpoint.index - 1] if checkpoint.index else None
            result = codec.result_to_proto(checkpoint, delta_base(provider.encoding, checkpoint, before))
            session.gate.intend("loss", f"checkpoint {checkpoint.index}", result.ByteSize(), round=request.round)
            yield result
        session.require_running()
        yield pb.Result(end=pb.End(count=len(trajectory)))

    def _find(self, context: grpc.ServicerContext) -> AcceptedSession:
        return session_of(self._sessions, context, NAME)


def provider_of(session: AcceptedSession) -> Provider:
    """The role behind a session of this protocol."""
    provider: Provider = session.role
    return provider


def take_offer(session: AcceptedSession, request: pb.OfferRequest) -> None:
    """Takes a checkpoint whose blob is here already.

    Raises:
        PeerMessageError: It does not fit.
    """
    if not request.HasField("checkpoint"):
        raise MalformedMessage(
            "the offer is incomplete", expected="checkpoint", received="nothing", action="send a checkpoint"
        )
    checkpoint = codec.checkpoint_from_proto(request.checkpoint)

    def take() -> None:
        with session.journal.transaction():
            provider_of(session).offer(request.round, checkpoint)
            subject = f"checkpoint {checkpoint.index}"
            session.gate.admit("loss", subject, request.ByteSize(), round=request.round)

    session.worker.call(take)


def take_close(session: AcceptedSession, request: pb.CloseRoundRequest) -> sessions_pb2.SignedStatement:
    """Ends the learner's part of a round; returns the receipt.

    Raises:
        PeerMessageError: It does not fit.
    """
    signed = statement_from_proto(request.request)
    receipt = session.worker.call(lambda: provider_of(session).close(request.round, request.count, signed))
    return statement_to_proto(receipt)


def take_acknowledgement(session: AcceptedSession, request: pb.AcknowledgeRequest) -> None:
    """Takes the learner's word that it has the whole trajectory.

    Raises:
        PeerMessageError: It does not fit.
    """
    signed = statement_from_proto(request.acknowledgement)

    def take() -> None:
        provider_of(session).acknowledge(request.round, signed)
        session.gate.deliver_all(request.round)

    session.worker.call(take)


def serve(server: grpc.Server, sessions: SessionRegistry) -> None:
    """Registers the service."""
    assisted_learning_pb2_grpc.add_AssistedLearningServicer_to_server(AssistedLearningServicer(sessions), server)
