"""The called side of declared calls: brings every message to the role, from whatever channel it came."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from google.protobuf.message import Message

from comity.errors import UnknownBlob
from comity.session.metering.tally import Wire
from comity.session.replayable_stream import ReplayableStream
from comity.session.session_registry import AcceptedSession
from comity.tensors import Blob
from comity.transport.blobs import ATTACHED, take_attached
from comity.transport.calls import Stream, Waiting, attaches
from comity.transport.methods import Method
from comity.wire.v1.blobs_pb2 import BlobRef


def dispatch(session: AcceptedSession, method: Method, request: Message, *, attached: bool = False) -> Message:
    """Has the role do what a call with one answer asks; returns the answer, which the gate has let out.

    Args:
        session: The session.
        method: The call.
        request: Its request.
        attached: Whether small blobs go with the answer that names them.

    Raises:
        PeerMessageError: The request does not fit.
        ComityError: The role refuses it, or the session cannot go on.
    """
    _take_attached(session, method, request)
    arguments = method.decode_request(request)
    with session.told_of_its_end():
        answer = method.encode_answer(session.worker.call(lambda: perform(session, method, request, arguments)))
        return _let_out(session, method, answer, request, attached=attached)


class Following:
    """Somebody who follows a stream of a role.

    Args:
        session: The session.
        method: A call that waits, or that is followed.
        request: Its request.
        attached: Whether small blobs go with the answer that names them.

    Raises:
        PeerMessageError: The request does not fit.
        NodeDraining: The session is being stopped.
    """

    def __init__(self, session: AcceptedSession, method: Method, request: Message, *, attached: bool = False) -> None:
        self._attached = attached
        self._session = session
        self._method = method
        self._request = request
        self._index = 0
        # Whether an item's message depends on the one before it.
        self._has_order = getattr(method.call, "encode", None) is not None
        self._notify: Callable[[], None] = _ignored
        self._ends: list[Callable[[], None]] = []
        self._stream: ReplayableStream[Any] = ReplayableStream()
        self._is_begun = self._is_closed = False
        self._answer: Future[Any] | None = None
        _take_attached(session, method, request)
        arguments = method.decode_request(request)
        arrived = time.monotonic()
        begun = session.worker.submit(lambda: perform(session, method, request, arguments, arrived))
        begun.add_done_callback(self._begin)

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Has something called, from any thread, whenever there may be something to read."""
        self._notify = notify
        self._ends.append(self._session.closing.subscribe(notify))
        notify()

    def close(self) -> None:
        """Follows no more."""
        self._notify = _ignored
        self._is_closed = True
        while self._ends:
            self._ends.pop()()
        if self._answer is not None and getattr(self._method.call, "cancels", False):
            self._answer.cancel()

    def read(self) -> Message | None:
        """The next message, which the gate has let out; None where there is none yet.

        Raises:
            StreamEnd: There is none after it.
            ComityError: What the stream, or the session, ended with.
        """
        self._session.closing.read(0)
        if not self._is_begun:
            return None
        with self._session.told_of_its_end():
            found = self._stream.read(self._index)
            if found is None:
                return None
            item, self._index = found
            before = self._stream[self._index - 2] if self._has_order and self._index > 1 else None
            message = self._method.encode_answer(item, self._session.role, before)
            return _let_out(self._session, self._method, message, self._request, attached=self._attached)

    def _begin(self, begun: Future[Any]) -> None:
        """Follows what the role gave, once it has."""
        error = begun.exception()
        if error is not None:
            self._stream.close(error)
        elif isinstance(self._method.call, Waiting | Stream):
            self._answer = begun.result()
            self._answer.add_done_callback(self._answered)
        else:
            self._stream, self._index = begun.result()
        self._is_begun = True
        self._ends.append(self._stream.subscribe(self._wake))
        if self._is_closed:
            self.close()
        self._notify()

    def _wake(self) -> None:
        self._notify()

    def _answered(self, answer: Future[Any]) -> None:
        if answer.cancelled():
            # Whoever asked has gone, and nobody reads this.
            self._stream.close()
            return
        error = answer.exception()
        if error is None:
            self._stream.append(answer.result())
        self._stream.close(error)


def perform(session: AcceptedSession, method: Method, request: Message, arguments: Any, arrived: float = 0.0) -> Any:
    """What the role does, and the record that it was asked: both are kept, or neither."""
    call = method.call
    with session.journal.transaction():
        if isinstance(call, Waiting | Stream) and call.metered:
            arguments = (
                Wire(request.ByteSize(), lambda value: method.encode_answer(value).ByteSize(), arrived),
                *arguments,
            )
        value = call.handle(session.role, session.context, *arguments)
        session.gate.admit(request)
        if getattr(call, "delivers", False):
            session.gate.deliver_all(method.request_rule.units_of(request))
    return value


def _take_attached(session: AcceptedSession, method: Method, request: Message) -> None:
    """Keeps the blobs that came with a request.

    Raises:
        PeerMessageError: One does not fit.
    """
    for each in method.call.uploads if attaches(method.call) else ():
        reference = each.reference(request)
        if reference is not None:
            take_attached(session, reference, each.kind, method.request_rule.units_of(request))


def _let_out(session: AcceptedSession, method: Method, answer: Message, request: Message, *, attached: bool) -> Message:
    """Lets an answer out through the gate, with the small blobs that its caller gets with it, where they are `attached`."""
    along: list[tuple[BlobRef, Blob]] = []
    for each in method.call.downloads if attached and attaches(method.call) else ():
        reference = each.reference(answer)
        digest = each.digest(answer)
        if (
            reference is None
            or digest is None
            or each.base_digest(answer) is not None
            or session.gate.has_crossed(digest)
        ):
            continue
        try:
            blob, kind, units = session.blobs.published(digest)
        except UnknownBlob:
            # Its caller may have it already, and hears of it otherwise when it asks.
            continue
        if blob.size <= ATTACHED:
            session.gate.send_blob(blob, kind, units, alone=False)
            along.append((reference, blob))
    session.gate.send(answer, request)
    for reference, blob in along:
        reference.content = bytes(blob.data)
    return answer


def _ignored() -> None:
    """Nobody asked to be told."""
