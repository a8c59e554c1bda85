"""The server harness: identity, errors, health and reflection, once for all services."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection

from comity.errors import AddressInUse, ComityError, InvalidValue, TooManyCalls, UnknownParty
from comity.session.limits import Limits
from comity.transport import health
from comity.transport import retry as times
from comity.transport.addresses import is_loopback, split_address
from comity.transport.identity import Identity, trusted_caller
from comity.transport.stalls import Stalls
from comity.transport.status import to_status
from comity.transport.streams import Streams, described, is_non_blocking, non_blocking, refuse
from comity.transport.trust import Trust

log = structlog.get_logger()

_LIMITS = Limits()


def options(limits: Limits) -> list[tuple[str, int]]:
    """Settings of a server's channels."""
    return [
        # Uploads come in chunks of a megabyte; nothing else is near it.
        ("grpc.max_receive_message_length", 8 * 2**20),
        ("grpc.so_reuseport", 0),
        # A caller that waits sends nothing but pings.
        ("grpc.http2.min_ping_interval_without_data_ms", times.milliseconds(times.KEEPALIVE_S / 2)),
        ("grpc.keepalive_permit_without_calls", 1),
        *times.keepalive(),
        ("grpc.max_connection_idle_ms", times.milliseconds(limits.idle_s)),
        ("grpc.server_handshake_timeout_ms", times.milliseconds(limits.handshake_s)),
    ]


class OpenCalls:
    """Counts the calls that each party has open.

    Args:
        most: How many it may have.
        of: How many all may have together; the last quarter is for parties that have none. None for any number.
    """

    def __init__(self, most: int, of: int | None = None) -> None:
        self._most = most
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
            if held >= self._most or is_full:
                expected = f"at most {held if is_full else self._most} calls at a time"
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


class ErrorBoundary(grpc.ServerInterceptor):
    """Turns errors of the tree into statuses, and anything else into one that tells the peer nothing.

    A failed call is logged in one line and leaves the session as it was.

    Args:
        trust: Whom this node trusts; None without TLS.
        services: Full names of the services; nobody reaches another.
        only: The one party that may call; None for all whom the node trusts.
        limits: How many calls are served at a time, and how slowly they may move.
    """

    def __init__(self, trust: Trust | None, services: Collection[str], only: str | None, limits: Limits) -> None:
        self._trust = trust
        self._services = services
        self._only = only
        self._places = OpenCalls(limits.calls_a_party, limits.calls)
        self._streams = OpenCalls(limits.streams_a_party)
        self._following: set[grpc.ServicerContext] = set()
        self.stalls = Stalls(limits)

    @contextmanager
    def _admitted(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Holds a place for a call of a party that is trusted."""
        with self._places.taken_by(self._caller(context)):
            yield

    def _caller(self, context: grpc.ServicerContext) -> str:
        party = trusted_caller(context, self._trust)
        if self._only not in {None, party}:
            raise UnknownParty(
                "the service is not for others",
                expected=self._only,
                received=party,
                action="have its operator name whom it is for, in the service's trust",
            )
        return party

    def _admit_stream(self, context: grpc.ServicerContext) -> None:
        """Takes a place for a stream of a party that is trusted, which is given back when the stream has ended."""
        give_back = self._streams.take(self._caller(context))
        self._following.add(context)

        def end() -> None:
            self._following.discard(context)
            give_back()

        if not context.add_callback(end):
            end()

    def end_untrusted(self) -> None:
        """Ends the streams of those whose card was removed, or changed, since they began; they are told when they call."""
        for context in self._following.copy():
            try:
                self._caller(context)
            except ComityError as error:
                log.warning("stream-cut", peer=context.peer(), error=error.reason(), detail=str(error))
                context.cancel()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps the handler of a call."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.strip("/").partition("/")[0] not in self._services:
            return None
        if handler.response_streaming:
            kind = "stream_stream" if handler.request_streaming else "unary_stream"
            behavior = getattr(handler, kind)
            wrapped: Callable[..., Any] = (
                _guard_sender(behavior, method, self._admit_stream)
                if is_non_blocking(behavior)
                else _guard_stream(behavior, method, self._admitted, self.stalls)
            )
        elif handler.request_streaming:
            kind = "stream_unary"
            wrapped = _guard_upload(getattr(handler, kind), method, self._admitted, self.stalls)
        else:
            kind = "unary_unary"
            wrapped = _guard_unary(getattr(handler, kind), method, self._admitted)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        made: grpc.RpcMethodHandler[Any, Any] = make(wrapped, handler.request_deserializer, handler.response_serializer)
        return made


def _guard_unary(behavior: Callable[..., Any], method: str, admitted: Admitted) -> Callable[..., Any]:
    def guarded(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            with admitted(context):
                return behavior(request, context)
        except grpc.RpcError:
            # The caller is gone, which the request's iterator says in this way; gRPC knows, and says nothing of it.
            raise
        except Exception as error:  # noqa: BLE001 - the boundary
            _abort(context, method, error)

    return guarded


def _guard_upload(behavior: Callable[..., Any], method: str, admitted: Admitted, stalls: Stalls) -> Callable[..., Any]:
    def take(pieces: Iterator[Any], context: grpc.ServicerContext) -> Any:
        with stalls.watched(context) as passed:
            return behavior(map(passed, pieces), context)

    return _guard_unary(take, method, admitted)


def _guard_stream(
    behavior: Callable[..., Iterator[Any]], method: str, admitted: Admitted, stalls: Stalls
) -> Callable[..., Iterator[Any]]:
    def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            with admitted(context), stalls.watched(context) as passed:
                yield from map(passed, behavior(request, context))
        except grpc.RpcError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary
            _abort(context, method, error)

    return guarded


def _guard_sender(
    behavior: Callable[..., None], method: str, admit: Callable[[grpc.ServicerContext], None]
) -> Callable[..., None]:
    @non_blocking
    def guarded(request: Any, context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        try:
            admit(context)
            behavior(request, context, send)
        except Exception as error:  # noqa: BLE001 - the boundary
            refuse(context, send, method, error)

    return guarded


def _abort(context: grpc.ServicerContext, method: str, error: Exception) -> None:
    if context.is_active():
        context.abort_with_status(to_status(described(context, method, error)))


class NodeServer:
    """A gRPC server with health, reflection and the error boundary.

    Args:
        identity: Certificate and trust; None serves plaintext, which only a Unix socket or loopback may.
        services: Full names of the services, for reflection and health; no other is served.
        only: The one party that may call; None for all whom the node trusts.
        limits: What it gives at most.
        pool: What reflection finds the services in; None for the pool that generated code shares.
    """

    def __init__(
        self,
        identity: Identity | None,
        services: list[str],
        *,
        only: str | None = None,
        limits: Limits = _LIMITS,
        pool: DescriptorPool | None = None,
    ) -> None:
        self._identity = identity
        self._pool = ThreadPoolExecutor(limits.calls, thread_name_prefix="rpc")
        self.streams = Streams()
        self._trust = identity.trusted() if identity is not None else None
        names = [*services, health.SERVICE, reflection.SERVICE_NAME]
        boundary = ErrorBoundary(self._trust, names, only, limits)
        self._stalls = boundary.stalls
        self.streams.meanwhile = boundary.end_untrusted
        self.server = grpc.server(self._pool, interceptors=[boundary], options=options(limits))
        self._health = health.Health(services, self.streams)
        self._health.add_to(self.server)
        reflection.enable_server_reflection(names, self.server, pool=pool)

    def start(self, address: str, *, ready: bool = True) -> str:
        """Listens and serves.

        Args:
            address: `host:port` with port 0 for any free one, or `unix:path`.
            ready: Whether health is SERVING at once, and not only when `say_serving` is called.

        Returns:
            The address with the port that is used.

        Raises:
            InvalidValue: It is no address, or plaintext would leave this machine.
            AddressInUse: The address is in use.
        """
        port = self._bind(address)
        self.server.start()
        self._health.say(serving=ready)
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    def say_serving(self, *, serving: bool) -> None:
        """Has health say from now on that it serves, or that it does not."""
        self._health.say(serving=serving)

    def _bind(self, address: str) -> int:
        if not address.startswith("unix:"):
            split_address(address)
            if self._identity is None and not is_loopback(address):
                raise InvalidValue(
                    "plaintext is for loopback only",
                    expected="127.0.0.1:port",
                    received=address,
                    action="configure [tls]",
                )
        try:
            if self._identity is None:
                return self.server.add_insecure_port(address)
            return self.server.add_secure_port(address, self._identity.server_credentials(self._trust))
        except RuntimeError as error:
            action = "stop what listens there, or configure another address"
            raise AddressInUse(
                "cannot listen", expected="a free address of this machine", received=address, action=action
            ) from error

    def stop(self, grace_s: float) -> None:
        """Says NOT_SERVING, takes no new calls and gives those that are active `grace_s` seconds to end."""
        self._health.say(serving=False)
        self.server.stop(grace_s).wait()
        self.streams.stop()
        self._stalls.stop()
        self._pool.shutdown()
