"""Calls by gRPC, over a line to a peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from google.protobuf.message import Message

from comity.ledger.ledger import Units
from comity.tensors import Blob
from comity.transport.bindings.conversation import Conversation
from comity.transport.calls import Stream
from comity.transport.methods import Method
from comity.transport.peer_connection import PeerConnection, encode


class RemoteChannel:
    """Implements `Channel` over a line, which quotes the session already.

    Args:
        connection: The line.
    """

    waits = True
    arrives = True
    attaches = True

    def __init__(self, connection: PeerConnection) -> None:
        self._connection = connection

    def call(self, method: Method, request: Message) -> Message:
        """See `Channel.call`."""
        return self._connection.call(self._connection.unary(method.path, method.answer_type), request)

    def follow(self, method: Method, request: Callable[[], Message]) -> Iterator[Message | None]:
        """See `Channel.follow`; begins again after a cut."""
        return self._connection.watch(self._connection.stream(method.path, method.answer_type), request)

    def converse(self, method: Method) -> Conversation | None:
        """See `Channel.converse`."""
        call = method.call
        if not isinstance(call, Stream):
            return None
        stub = self._connection.stub(
            lambda channel: channel.stream_stream(method.path, encode, method.answer_type.FromString)
        )
        conversation = Conversation(lambda requests: self._connection.watch(stub, requests), call, method.call.method)
        self._connection.at_close(conversation.close)
        return conversation

    def put(self, blob: Blob, kind: str, units: Units, before: Callable[[int], None], base: Blob | None) -> None:
        """See `Channel.put`."""
        self._connection.put(blob, kind, units, before=before, base=base)

    def get(
        self,
        digest: bytes,
        size: int,
        verify: Callable[[Blob], None],
        *,
        after: Callable[[int], None],
        base: Blob | None,
    ) -> Blob:
        """See `Channel.get`."""
        return self._connection.get(digest, size, verify, after=after, base=base)

    def at_close(self, end: Callable[[], None]) -> None:
        """See `Channel.at_close`."""
        self._connection.at_close(end)
