"""The server's port within one process, by way of the wire's messages."""

from __future__ import annotations

from collections.abc import Iterator

from comity.errors import UnknownBlob
from comity.ledger.receipts import SignedStatement
from comity.protocols.gradient_rewards import codec
from comity.protocols.gradient_rewards.messages import News, Reward
from comity.protocols.gradient_rewards.server import Server
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.session.contexts import PeerContext
from comity.transport.in_process import encoded, upload
from comity.wire.v1 import gradient_rewards_pb2 as pb


class InProcessServer:
    """Implements `Rewarding`; the server works when a client asks for news.

    Args:
        client: The client's context.
        context: The server's context opposite it.
        server: The server.
        parameters: Entries of a whole update.
    """

    def __init__(self, client: PeerContext, context: PeerContext, server: Server, parameters: int) -> None:
        self._client = client
        self._context = context
        self._server = server
        self._parameters = parameters
        self._party = context.peer.party

    def news(self, after: int) -> Iterator[News | None]:
        """See `Rewarding.news`; gives None while others have to have their turn."""
        done, told = after, None
        while told is None or told.kind != "over":
            while self._server.advance():
                pass
            news = self._server.news(self._party, done)
            if news is None or news == told:
                yield None
                continue
            message = codec.news_to_proto(news)
            if news.reward is not None:
                self._context.gate.intend("reward", "statement", message.ByteSize(), round=news.round)
                self._client.gate.admit("reward", "statement", message.ByteSize(), round=news.round)
                done = news.round
            told = news
            yield codec.news_from_proto(encoded(message), self._parameters)

    def submit(self, round: int, update: bytes) -> None:
        """See `Rewarding.submit`."""
        upload(update, "update", round, self._client, self._context)
        self._server.submit(self._party, round, update)

    def confirm(self, round: int, request: SignedStatement) -> SignedStatement:
        """See `Rewarding.confirm`."""
        sent = encoded(pb.ConfirmRequest(round=round, request=statement_to_proto(request)))
        receipt = self._server.confirm(self._party, sent.round, statement_from_proto(sent.request))
        return statement_from_proto(encoded(statement_to_proto(receipt)))

    def fetch(self, reward: Reward) -> bytes:
        """See `Rewarding.fetch`."""
        terms = reward.terms
        blob, kind, round = self._context.blobs.published(terms.entries)
        if blob.size != terms.size:
            raise UnknownBlob("no such reward", expected=f"{terms.size} bytes", received=f"{blob.size} bytes")
        self._context.gate.intend(kind, blob.hex, blob.size, round=round)
        self._client.gate.admit(kind, blob.hex, blob.size, round=round)
        return bytes(blob.data)

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Rewarding.acknowledge`."""
        sent = encoded(pb.AcknowledgeRewardRequest(round=round, acknowledgement=statement_to_proto(acknowledgement)))
        self._server.acknowledge(self._party, sent.round, statement_from_proto(sent.acknowledgement))
        self._context.gate.deliver_all(round)
