"""The server's port over gRPC."""

from __future__ import annotations

from collections.abc import Iterator

from comity.blobs.session_blobs import SessionBlobs
from comity.errors import MalformedMessage
from comity.ledger.receipts import SignedStatement
from comity.protocols.gradient_rewards import codec
from comity.protocols.gradient_rewards.messages import News, Reward
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.session.gate import EgressGate
from comity.tensors import Blob, sparse
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import blobs_pb2, gradient_rewards_pb2_grpc
from comity.wire.v1 import gradient_rewards_pb2 as pb


class RemoteServer:
    """Implements `Rewarding`.

    Args:
        connection: The line to the server, which quotes the session already.
        parameters: Entries of a whole update.
        blobs: The session's blobs at this party.
        gate: What may leave.
    """

    def __init__(self, connection: PeerConnection, parameters: int, blobs: SessionBlobs, gate: EgressGate) -> None:
        self._connection = connection
        self._stub = connection.stub(gradient_rewards_pb2_grpc.GradientRewardsStub)
        self._parameters = parameters
        self._blobs = blobs
        self._gate = gate

    def news(self, after: int) -> Iterator[News | None]:
        """See `Rewarding.news`; waits."""
        done = after

        def request() -> pb.WatchRoundsRequest:
            return pb.WatchRoundsRequest(after=done)

        for message in self._connection.watch(self._stub.WatchRounds, request):
            news = codec.news_from_proto(message, self._parameters)
            if news.reward is not None:
                self._gate.admit("reward", "statement", message.ByteSize(), round=news.round)
            yield news
            if news.kind == "over":
                return
            if news.reward is not None:
                done = max(done, news.round)
        raise MalformedMessage(
            "the server's news ended before the session",
            expected="an end",
            received=f"nothing after round {done}",
            action="ask the server's operator what happened",
        )

    def submit(self, round: int, update: bytes) -> None:
        """See `Rewarding.submit`."""
        blob = self._blobs.get(update)
        self._connection.put(
            blob, "update", round, before=lambda size: self._gate.intend("update", blob.hex, size, round=round)
        )
        self._gate.deliver("update", blob.hex, round=round)
        self._connection.call(self._stub.Submit, pb.SubmitRequest(round=round, update=blobs_pb2.BlobRef(digest=update)))

    def confirm(self, round: int, request: SignedStatement) -> SignedStatement:
        """See `Rewarding.confirm`."""
        message = pb.ConfirmRequest(round=round, request=statement_to_proto(request))
        return statement_from_proto(self._connection.call(self._stub.Confirm, message))

    def fetch(self, reward: Reward) -> bytes:
        """See `Rewarding.fetch`."""
        terms = reward.terms

        def verify(blob: Blob) -> None:
            sparse.decode(blob.data, self._parameters)

        blob = self._connection.get(terms.entries, terms.size, verify)
        self._gate.admit("reward", blob.hex, blob.size, round=terms.round)
        return bytes(blob.data)

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Rewarding.acknowledge`."""
        message = pb.AcknowledgeRewardRequest(round=round, acknowledgement=statement_to_proto(acknowledgement))
        self._connection.call(self._stub.AcknowledgeReward, message)
