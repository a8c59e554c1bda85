"""What every call passes before its handler: who calls, how many calls a party has, and errors as statuses."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from comity.errors import ComityError, MalformedMessage, TooManyCalls, UnknownParty
from comity.session.limits import Limits
from comity.transport.call_watchers import measured
from comity.transport.connections import Connections
from comity.transport.identity import Shown, session_named, shown_by
from comity.transport.stalls import Stalls
from comity.transport.status import to_status
from comity.transport.streams import (
    PolledRequests,
    Streams,
    described,
    is_non_blocking,
    no_request,
    non_blocking,
    refuse,
)
from comity.transport.trust import Trust

log = structlog.get_logger()


class OpenCalls:
    """Counts the calls that each party has open.

    Args:
        most: How many it may have.
        of: How many all may have together; the last quarter is for parties that have none. None for any number.
    """

    def __init__(self, most: int, of: int | None = None) -> None:
        self.most = most
        self._of = of
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def take(self, party: str) -> Callable[[], None]:
        """Takes a place for a call; returns what gives it back.

        Raises:
            TooManyCalls: The party holds as many as it may.
        """
        with self._lock:
            held = self._open[party]
            is_full = self._of is not None and held > 0 and self._open.total() >= self._of - self._of // 4
            if held >= self.most or is_full:
                expected = f"at most {held if is_full else self.most} calls at a time"
                raise TooManyCalls(
                    "too many calls", expected=expected, received="one more", action="wait for their answers"
                )
            self._open[party] += 1

        def give_back() -> None:
            with self._lock:
                self._open[party] -= 1
                if not self._open[party]:
                    del self._open[party]

        return give_back

    @contextmanager
    def taken_by(self, party: str) -> Iterator[None]:
        """Holds a place while a call lasts; see `take`."""
        give_back = self.take(party)
        try:
            yield
        finally:
            give_back()


Admitted = Callable[[grpc.ServicerContext], AbstractContextManager[None]]
"""Lets a call in for as long as it lasts; raises where it may not."""


Decode = Callable[[bytes], Any]
"""Makes a request of what crossed; raises `MalformedMessage` where it is none."""


class ErrorBoundary(grpc.ServerInterceptor):
    """Turns errors of the tree into statuses, and anything else into one that tells the peer nothing.

    A failed call is logged in one line and leaves the session as it was.

    Args:
        trust: Whom this node trusts; None without TLS.
        services: Full names of the services; nobody reaches another.
        only: The one party that may call; None for all whom the node trusts.
        limits: How many calls are served at a time, and how slowly they may move.
        followed: Sends to those who follow.
        connections: Are told whose they are.
    """

    def __init__(
        self,
        trust: Trust | None,
        services: Collection[str],
        only: str | None,
        limits: Limits,
        followed: Streams,
        connections: Connections,
    ) -> None:
        self._trust = trust
        self._followed = followed
        self._connections = connections
        self._services = services
        self._only = only
        self._places = OpenCalls(limits.calls_a_party, limits.calls)
        self._streams = OpenCalls(limits.streams_a_party)
        self._following: dict[grpc.ServicerContext, Shown] = {}
        self.stalls = Stalls(limits)

    @contextmanager
    def _admitted(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Holds a place for a call of a party that is trusted."""
        with self._places.taken_by(self._caller(context).party):
            yield

    def _caller(self, context: grpc.ServicerContext) -> Shown:
        shown = shown_by(context)
        shown.require(self._trust)
        if self._only not in {None, shown.party}:
            raise UnknownParty(
                "the service is not for others",
                expected=self._only,
                received=shown.party,
                action="have its operator name whom it is for, in the service's trust",
            )
        self._connections.called(context.peer(), shown.party)
        return shown

    def take_limits(self, limits: Limits) -> None:
        """Goes by other limits from now on, but for how many calls there are threads for."""
        self._places.most, self._streams.most = limits.calls_a_party, limits.streams_a_party
        self.stalls.limits = limits

    def _admit_stream(self, context: grpc.ServicerContext) -> None:
        """Takes a place for a stream of a party that is trusted, which is given back when the stream has ended."""
        shown = self._caller(context)
        give_back = self._streams.take(shown.party)
        self._following[context] = shown

        def end() -> None:
            self._following.pop(context, None)
            give_back()

        if not context.add_callback(end):
            end()

    def end_untrusted(self) -> None:
        """Ends the streams of those whose card was removed, or changed, since they began; they are told when they call."""
        following = self._following.copy()
        # Once for each certificate: to look at a thousand connections would hold every call for ten milliseconds.
        refused: dict[Shown, ComityError] = {}
        for shown in set(following.values()):
            try:
                shown.require(self._trust)
            except ComityError as error:
                refused[shown] = error
        for context, shown in following.items():
            if shown in refused:
                why = refused[shown]
                log.warning("stream-cut", peer=context.peer(), error=why.reason(), detail=str(why))
                context.cancel()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps the handler of a call.

        All take a stream of requests, of which calls of one request are a stream of one on the wire: grpc itself has a thread
        wait for that one before it asks anybody whether the caller may have a thread. And all take them as bytes: grpc itself
        ends a call whose request cannot be read while its handler goes on, and then keeps what it holds of it for ever.
        """
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.strip("/").partition("/")[0] not in self._services:
            return None
        coders, decode = (None, handler.response_serializer), _decoder(handler.request_deserializer)
        asked = "stream" if handler.request_streaming else "unary"
        wrapped: Callable[..., Any]
        if not handler.response_streaming:
            guard = _guard_upload if handler.request_streaming else _guard_unary
            wrapped = guard(getattr(handler, f"{asked}_unary"), method, decode, self._admitted, self.stalls)
            return grpc.stream_unary_rpc_method_handler(wrapped, *coders)
        behavior = getattr(handler, f"{asked}_stream")
        if not is_non_blocking(behavior):
            give = (
                behavior if handler.request_streaming else lambda requests, context: behavior(_only(requests), context)
            )
            wrapped = _guard_stream(give, method, decode, self._admitted, self.stalls)
        else:
            follow = behavior if handler.request_streaming else self._followed.of_one(behavior, method)
            wrapped = _guard_sender(follow, method, decode, self._admit_stream)
        return grpc.stream_stream_rpc_method_handler(wrapped, *coders)


def _decoder(read: Callable[[bytes], Any] | None) -> Decode:
    """Makes a request of what crossed, by what a handler was registered with."""

    def decode(data: bytes) -> Any:
        try:
            return data if read is None else read(data)
        except DecodeError as error:
            raise MalformedMessage(
                "the request cannot be read", expected="a message of this call", received=f"{len(data)} bytes"
            ) from error

    return decode


def _only(requests: Iterator[Any]) -> Any:
    """The one request of a call.

    Raises:
        MalformedMessage: There is none.
    """
    request = next(requests, None)
    if request is None:
        raise no_request()
    return request


def _guard_unary(
    behavior: Callable[..., Any], method: str, decode: Decode, admitted: Admitted, stalls: Stalls
) -> Callable[..., Any]:
    def take(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        with stalls.watched(context):
            request = _only(requests)
        return behavior(decode(request), context)

    return _guard_answered(take, method, admitted)


def _guard_upload(
    behavior: Callable[..., Any], method: str, decode: Decode, admitted: Admitted, stalls: Stalls
) -> Callable[..., Any]:
    def take(pieces: Iterator[Any], context: grpc.ServicerContext) -> Any:
        with stalls.watched(context) as passed:
            return behavior(map(passed, map(decode, pieces)), context)

    return _guard_answered(take, method, admitted)


def _guard_answered(take: Callable[..., Any], method: str, admitted: Admitted) -> Callable[..., Any]:
    def guarded(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        try:
            with measured("server", method, session_named(context)), admitted(context):
                return take(requests, context)
        except grpc.RpcError:
            # The caller is gone, which the request's iterator says in this way; gRPC knows, and says nothing of it.
            raise
        except Exception as error:  # noqa: BLE001 - the boundary
            _abort(context, method, error)

    return guarded


def _guard_stream(
    behavior: Callable[..., Iterator[Any]], method: str, decode: Decode, admitted: Admitted, stalls: Stalls
) -> Callable[..., Iterator[Any]]:
    def guarded(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            with (
                measured("server", method, session_named(context)),
                admitted(context),
                stalls.watched(context) as passed,
            ):
                yield from map(passed, behavior(map(decode, requests), context))
        except grpc.RpcError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary
            _abort(context, method, error)

    return guarded


def _guard_sender(
    behavior: Callable[..., None], method: str, decode: Decode, admit: Callable[[grpc.ServicerContext], None]
) -> Callable[..., None]:
    @non_blocking
    def guarded(requests: Any, context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        try:
            admit(context)
            behavior(PolledRequests(requests, decode), context, send)
        except Exception as error:  # noqa: BLE001 - the boundary
            refuse(context, send, method, error)

    return guarded


def _abort(context: grpc.ServicerContext, method: str, error: Exception) -> None:
    if context.is_active():
        context.abort_with_status(to_status(described(context, method, error)))
