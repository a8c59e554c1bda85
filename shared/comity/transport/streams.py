"""Streams that grow, sent to those who follow them: however many there are, they hold no threads of the server.

This is the one place that says how, so that it can be decided anew; docs/decisions has what was compared. A handler that is
`non_blocking` is given what sends, and returns at once; a few threads send what there is, one message to each follower in
turn. It rests on an attribute of grpc's that is not documented, `experimental_non_blocking`; a test would see it vanish.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import grpc
import structlog

from comity.errors import ComityError, MalformedMessage, RemoteFailure, StorageError
from comity.session.replayable_stream import StreamEnd
from comity.transport.identity import caller, session_named
from comity.transport.retry import STUCK_S
from comity.transport.status import to_status

log = structlog.get_logger()

Handler = TypeVar("Handler", bound=Callable[..., None])
Send = Callable[[Any], None]
"""Sends a message, and waits until the transport has taken it; None ends the stream."""

_SENDERS = 8
_SENDERS_A_PARTY = 2
"""Those who send to one party at a time: a send waits for its reader, who may have said that it reads nothing."""


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
        requests: The iterator, of what crossed.
        decode: Makes a request of it; raises where it is none.
    """

    def __init__(self, requests: Any, decode: Callable[[bytes], Any] = bytes) -> None:
        self._requests = requests
        self._decode = decode
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

    def close(self) -> None:
        """Has nothing called any more. Else the call, with all that grpc keeps of it, would hold itself when it is over."""
        vars(self._state.condition).pop("notify_all", None)

    def poll(self) -> Any:
        """The next request; None where there is none yet.

        Raises:
            StreamEnd: There will be none: the caller has said so, or is gone.
            ComityError: It is none.
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
        return None if request is None else self._decode(request)


class _Asking:
    """A caller whose request is waited for; see `Source`. Nothing is sent for it: who takes the request sends.

    Args:
        requests: What comes.
        ask: Takes the request.
    """

    def __init__(self, requests: PolledRequests, ask: Callable[[Any], None]) -> None:
        self._requests = requests
        self._ask: Callable[[Any], None] | None = ask
        self._notify: Callable[[], None] = _ignored

    def subscribe(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._requests.subscribe(self._wake)
        notify()

    def _wake(self) -> None:
        self._notify()

    def read(self) -> None:
        if self._ask is None:
            return
        try:
            request = self._requests.poll()
        except StreamEnd:
            raise no_request() from None
        if request is not None:
            ask, self._ask = self._ask, None
            self.close()
            ask(request)

    def close(self) -> None:
        self._notify = _ignored
        self._requests.close()


def _ignored() -> None:
    """Nobody asked to be told."""


def no_request() -> MalformedMessage:
    """Says that a call of one request had none."""
    return MalformedMessage("the call has no request", expected="one message", received="none", action="send it")


class _Turns:
    """Followers who wait for a sender: in the order in which they came, of parties that have fewer senders than they may."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[_Follower]] = {}
        self._sending: Counter[str] = Counter()
        self._is_over = False

    def put(self, follower: _Follower) -> None:
        """Has a follower wait."""
        with self._changed:
            self._waiting.setdefault(follower.party, deque()).append(follower)
            self._changed.notify()

    def get(self) -> _Follower | None:
        """The next one, once there is one; None when there will be none. `done` is to follow."""
        with self._changed:
            while not self._is_over:
                for party, waiting in self._waiting.items():
                    if self._sending[party] < _SENDERS_A_PARTY:
                        follower = waiting.popleft()
                        # The next turn is another party's.
                        del self._waiting[party]
                        if waiting:
                            self._waiting[party] = waiting
                        self._sending[party] += 1
                        return follower
                self._changed.wait()
            return None

    def done(self, follower: _Follower) -> None:
        """Gives a sender back."""
        with self._changed:
            self._sending[follower.party] -= 1
            if not self._sending[follower.party]:
                del self._sending[follower.party]
            self._changed.notify()

    def end(self) -> None:
        """Has nobody wait any more."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


class Streams:
    """Sends to all who follow something at a server."""

    def __init__(self) -> None:
        self._ready = _Turns()
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

    def of_one(
        self, behavior: Callable[[Any, grpc.ServicerContext, Send], None], method: str
    ) -> Callable[[PolledRequests, grpc.ServicerContext, Send], None]:
        """A handler of a stream that takes one request, as one that takes a stream of them: it waits for it without a thread.

        Args:
            behavior: The handler; it is called by one of those who send.
            method: What it is called by, for the log.
        """

        @non_blocking
        def follow(requests: PolledRequests, context: grpc.ServicerContext, send: Send) -> None:
            def ask(request: Any) -> None:
                try:
                    behavior(request, context, send)
                except Exception as error:  # noqa: BLE001 - the boundary
                    refuse(context, send, method, error)

            self.serve(_Asking(requests, ask), context, send)

        return follow

    def stop(self) -> None:
        """Sends nothing more."""
        self._stopped.set()
        self._ready.end()
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
                self._ready.done(follower)
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

    def __init__(self, source: Source, context: grpc.ServicerContext, send: Send, ready: _Turns) -> None:
        self._source = source
        self._context = context
        self._send = send
        self._ready = ready
        self._lock = threading.Lock()
        self._is_queued = self._is_sending = self._is_over = False
        self.name = context.peer()
        self.party = caller(context)

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
        about = _about(context, method)
        log.warning("call-refused", **about, error=error.reason(), detail=str(error))
        if isinstance(error, StorageError) and not context.peer().startswith("unix:"):
            # Where this node keeps what is its operator's to know.
            return type(error)("the node cannot keep what it must", action="its operator finds the reason in its log")
        return error
    log.error("call-failed", **_about(context, method), exc_info=error)
    return RemoteFailure("the node failed at this call", action="its operator finds the reason in its log")


def _about(context: grpc.ServicerContext, method: str) -> dict[str, str]:
    """What call it is, with the session that it quotes, where it does."""
    session = session_named(context)
    return {"method": method, "peer": context.peer()} | ({"session": session} if session else {})
