"""Streams that grow, sent to those who follow them: however many there are, they hold no threads of the server.

This is the one place that says how, so that it can be decided anew; docs/decisions has what was compared. A handler that is
`non_blocking` is given what sends, and returns at once; a few threads send what there is, one message to each follower in
turn. It rests on an attribute of grpc's that is not documented, `experimental_non_blocking`; a test would see it vanish.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import grpc
import structlog

from comity.errors import ComityError, RemoteFailure, StorageError
from comity.session.replayable_stream import StreamEnd
from comity.transport.retry import STUCK_S
from comity.transport.status import to_status

log = structlog.get_logger()

Handler = TypeVar("Handler", bound=Callable[..., None])
Send = Callable[[Any], None]
"""Sends a message, and waits until the transport has taken it; None ends the stream."""

_SENDERS = 4


def non_blocking(handler: Handler) -> Handler:
    """Marks a handler of a stream that is called with what sends, and returns before the stream has ended."""
    handler.experimental_non_blocking = True  # type: ignore[attr-defined]
    return handler


def is_non_blocking(handler: Callable[..., Any]) -> bool:
    """Whether a handler is so marked."""
    return bool(getattr(handler, "experimental_non_blocking", False))


class Source(Protocol):
    """What somebody follows."""

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Has something called, from any thread, whenever there may be something to read; and now."""

    def read(self) -> Any:
        """The next message; None where there is none yet. Raises `StreamEnd`, or why there will be none."""

    def close(self) -> None:
        """Follows no more."""


class PolledRequests:
    """What a caller sends in a stream, looked for without a thread that waits; until it is looked for, nothing more is read.

    grpc has no such thing: what it gives is an iterator whose `next` waits on a condition. This asks the iterator for what
    there is, and has itself called where the condition is notified. A test would see it change.

    Args:
        requests: The iterator.
    """

    def __init__(self, requests: Any) -> None:
        self._requests = requests
        self._state = requests._state  # noqa: SLF001 - see above
        self._is_reading = False

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Has something called, from any thread, whenever there may be a request, or the caller is gone."""
        condition = self._state.condition
        notify_all = condition.notify_all

        def notify_them() -> None:
            notify_all()
            notify()

        condition.notify_all = notify_them

    def poll(self) -> Any:
        """The next request; None where there is none yet.

        Raises:
            StreamEnd: There will be none: the caller has said so, or is gone.
        """
        with self._state.condition:
            try:
                if not self._is_reading:
                    self._requests._raise_or_start_receive_message()  # noqa: SLF001
                    self._is_reading = True
                request = self._requests._look_for_request()  # noqa: SLF001
            except (StopIteration, grpc.RpcError) as end:
                raise StreamEnd from end
            if request is not None:
                self._is_reading = False
        return request


class Streams:
    """Sends to all who follow something at a server."""

    def __init__(self) -> None:
        self._ready: queue.SimpleQueue[_Follower | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sending: dict[_Follower, float] = {}
        self._stopped = threading.Event()
        self.meanwhile: Callable[[], None] = lambda: None
        """Is called every second while anybody follows anything."""

    def serve(self, source: Source, context: grpc.ServicerContext, send: Send) -> None:
        """Sends, from now on, what a source gives, until it ends or its follower goes."""
        self._start()
        follower = _Follower(source, context, send, self._ready)
        if not context.add_callback(follower.leave):
            follower.leave()
        source.subscribe(follower.wake)

    def stop(self) -> None:
        """Sends nothing more."""
        self._stopped.set()
        for _ in self._threads:
            self._ready.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._threads or self._stopped.is_set():
                return
            names = [("stream", self._send)] * _SENDERS + [("stream-guard", self._guard)]
            self._threads = [threading.Thread(target=each, name=name, daemon=True) for name, each in names]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while (follower := self._ready.get()) is not None:
            with self._lock:
                self._sending[follower] = time.monotonic()
            more = False
            try:
                more = follower.send_one()
            finally:
                with self._lock:
                    del self._sending[follower]
                # Only now: another thread that took it up before would lose its own entry.
                follower.settle(more=more)

    def _guard(self) -> None:
        """Frees the senders of followers who have stopped to read: a send waits for them."""
        while not self._stopped.wait(STUCK_S / 8):
            late = time.monotonic() - STUCK_S
            with self._lock:
                stuck = [follower for follower, since in self._sending.items() if since < late]
            for follower in stuck:
                log.warning("follower-stuck", peer=follower.name)
                follower.cancel()
            self.meanwhile()


class _Follower:
    """One who follows a source. At most one thread sends to it at a time."""

    def __init__(
        self, source: Source, context: grpc.ServicerContext, send: Send, ready: queue.SimpleQueue[_Follower | None]
    ) -> None:
        self._source = source
        self._context = context
        self._send = send
        self._ready = ready
        self._lock = threading.Lock()
        self._is_queued = self._is_sending = self._is_over = False
        self.name = context.peer()

    def wake(self) -> None:
        """Looks, soon, whether there is something to send."""
        with self._lock:
            if self._is_over or self._is_queued:
                return
            self._is_queued = True
            if self._is_sending:
                # Whoever sends looks again.
                return
        self._ready.put(self)

    def leave(self) -> None:
        """Ends: the follower is gone, or has everything."""
        with self._lock:
            self._is_over = True
        self._source.close()

    def cancel(self) -> None:
        """Cuts the stream."""
        self._context.cancel()

    def send_one(self) -> bool:
        """Sends the next message, if there is one; returns whether there may be more. `settle` is to follow."""
        with self._lock:
            self._is_queued = False
            if self._is_over:
                return False
            self._is_sending = True
        return self._pass_one()

    def settle(self, *, more: bool) -> None:
        """Takes its place at the end of those who wait, where there may be more to send: no thread sends to it now."""
        with self._lock:
            self._is_sending = False
            again = (more or self._is_queued) and not self._is_over
            self._is_queued = again
        if again:
            self._ready.put(self)

    def _pass_one(self) -> bool:
        try:
            message = self._source.read()
            if message is None:
                return False
            self._send(message)
        except StreamEnd:
            self.leave()
            self._send(None)
            return False
        except Exception as error:  # noqa: BLE001 - the boundary
            self.leave()
            refuse(self._context, self._send, "stream", error)
            return False
        return True


def refuse(context: grpc.ServicerContext, send: Send, method: str, error: Exception) -> None:
    """Ends a stream with the status of an error; one that is none of the tree tells the peer nothing."""
    if not context.is_active():
        return
    status = to_status(described(context, method, error))
    context.set_code(status.code)
    context.set_details(status.details)
    context.set_trailing_metadata(status.trailing_metadata)
    send(None)


def described(context: grpc.ServicerContext, method: str, error: Exception) -> ComityError:
    """What a peer is told of an error, which is logged in one line."""
    if isinstance(error, ComityError):
        log.warning("call-refused", method=method, peer=context.peer(), error=error.reason(), detail=str(error))
        if isinstance(error, StorageError) and not context.peer().startswith("unix:"):
            # Where this node keeps what is its operator's to know.
            return type(error)("the node cannot keep what it must", action="its operator finds the reason in its log")
        return error
    log.error("call-failed", method=method, peer=context.peer(), exc_info=error)
    return RemoteFailure("the node failed at this call", action="its operator finds the reason in its log")
