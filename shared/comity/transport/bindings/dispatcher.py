"""The called side of declared calls: brings every message to the role, from whatever channel it came."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from google.protobuf.message import Message

from comity.session.metering import Wire
from comity.session.replayable_stream import ReplayableStream
from comity.session.session_registry import AcceptedSession
from comity.transport.calls import Stream, Waiting
from comity.transport.methods import Method


def dispatch(session: AcceptedSession, method: Method, request: Message) -> Message:
    """Has the role do what a call with one answer asks; returns the answer, which the gate has let out.

    Raises:
        PeerMessageError: The request does not fit.
        ComityError: The role refuses it, or the session cannot go on.
    """
    arguments = method.decode_request(request)
    with session.told_of_its_end():
        answer = method.encode_answer(session.worker.call(lambda: perform(session, method, request, arguments)))
        session.gate.send(answer, request)
    return answer


class Following:
    """Somebody who follows a stream of a role.

    Args:
        session: The session.
        method: A call that waits, or that is followed.
        request: Its request.

    Raises:
        PeerMessageError: The request does not fit.
        NodeDraining: The session is being stopped.
    """

    def __init__(self, session: AcceptedSession, method: Method, request: Message) -> None:
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
            self._session.gate.send(message, self._request)
        return message

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


def _ignored() -> None:
    """Nobody asked to be told."""
