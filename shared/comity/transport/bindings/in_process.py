"""Calls between two parties of one process: what crosses takes the wire's form, so that a simulation is the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

from comity.blobs.incoming import Incoming
from comity.errors import BlobSizeMismatch
from comity.ledger.ledger import Units
from comity.session.contexts import PeerContext
from comity.session.replayable_stream import StreamEnd
from comity.session.session_registry import AcceptedSession
from comity.session.worker import InlineWorker
from comity.tensors import Blob
from comity.tensors.delta import shortest
from comity.transport.bindings.conversation import Conversation
from comity.transport.bindings.dispatcher import Following, dispatch
from comity.transport.blobs import chunks, decode_chunk, encode_chunk
from comity.transport.methods import Method

Sent = TypeVar("Sent", bound=Message)


def encoded(message: Sent) -> Sent:
    """A message as the other side decodes it."""
    return type(message).FromString(message.SerializeToString())


class InProcessChannel:
    """Implements `Channel` for a role in this process, which works while its caller waits.

    Args:
        context: The called party's context opposite the caller.
        role: Its role.
    """

    waits = False
    arrives = True
    attaches = False

    def __init__(self, context: PeerContext, role: object) -> None:
        self._worker = InlineWorker(role)  # type: ignore[arg-type]
        self._session = AcceptedSession(context, role, self._worker)

    def call(self, method: Method, request: Message) -> Message:
        """See `Channel.call`."""
        return encoded(dispatch(self._session, method, encoded(request)))

    def follow(self, method: Method, request: Callable[[], Message]) -> Iterator[Message | None]:
        """See `Channel.follow`; the role works where nothing has come yet, and others do where it has nothing to do."""
        following = Following(self._session, method, encoded(request()))
        try:
            while True:
                message = following.read()
                if message is not None:
                    yield encoded(message)
                elif not self._worker.advance():
                    yield None
        except StreamEnd:
            return
        finally:
            following.close()

    def converse(self, method: Method) -> Conversation | None:
        """See `Channel.converse`."""
        del method
        return None

    def put(self, blob: Blob, kind: str, units: Units, before: Callable[[int], None], base: Blob | None) -> None:
        """See `Channel.put`."""
        blobs, gate = self._session.blobs, self._session.gate
        if blobs.held(blob.digest).complete:
            return
        sent, encoding = shortest(blob, base)
        before(sent.size)
        incoming = blobs.receive(kind, units, blob.digest, sent.size, 0, encoding)
        _pass_bytes(sent, incoming)
        blobs.complete(incoming, lambda whole: gate.admit_blob(whole.digest, kind, units, sent.size))

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
        blobs = self._session.blobs
        blob, kind, units = blobs.published(digest)
        if blob.size != size:
            raise BlobSizeMismatch("the blob has another length", expected=f"{size} bytes", received=blob.size)
        sent, encoding = shortest(blob, None if base is None else blobs.published(base.digest)[0])
        self._session.gate.send_blob(blob, kind, units, size=sent.size)
        incoming = Incoming(digest, sent.size, encoding, None if encoding is None else base)
        _pass_bytes(sent, incoming)
        copy = incoming.finish()
        verify(copy)
        after(sent.size)
        return copy

    def at_close(self, end: Callable[[], None]) -> None:
        """Nothing is ever on."""


def _pass_bytes(sent: Blob, incoming: Incoming) -> None:
    for piece in chunks(sent, 0):
        incoming.write(decode_chunk(encode_chunk(piece)))
