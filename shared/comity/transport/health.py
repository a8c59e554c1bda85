"""gRPC's standard health service.

A follower holds no thread, and is told by the same few senders as all who follow something. The one that comes with
gRPC sends under its lock, where one follower who stops to read holds all the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from comity.session.replayable_stream import ReplayableStream
from comity.transport.streams import Send, Streams, non_blocking

SERVICE = health.SERVICE_NAME

_Status = health_pb2.HealthCheckResponse.ServingStatus
_UNKNOWN = _Status.Value("SERVICE_UNKNOWN")


class Health:
    """Whether a node's services serve: all of them do, or none does yet or any more.

    Args:
        services: Their full names; the empty one stands for the node.
        streams: Tells those who follow.
    """

    def __init__(self, services: Iterable[str], streams: Streams) -> None:
        self._services = {"", *services}
        self._streams = streams
        self._statuses: ReplayableStream[int] = ReplayableStream()
        self._status = _Status.Value("NOT_SERVING")

    def say(self, *, serving: bool) -> None:
        """Says, from now on, that the services serve, or that they do not."""
        self._status = _Status.Value("SERVING" if serving else "NOT_SERVING")
        self._statuses.append(self._status)

    def add_to(self, server: grpc.Server) -> None:
        """Registers the service."""
        kinds = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, *kinds),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, *kinds),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def _check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return health_pb2.HealthCheckResponse()
        return health_pb2.HealthCheckResponse(status=self._status)

    @non_blocking
    def _watch(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext, send: Send) -> None:
        known = request.service in self._services
        self._streams.serve(_Following(self._statuses, self._status if known else _UNKNOWN, known=known), context, send)


class _Following:
    """Somebody who follows a status; see `Source`."""

    def __init__(self, statuses: ReplayableStream[int], first: int, *, known: bool) -> None:
        self._statuses = statuses
        self._next: int | None = first
        self._index = len(statuses)
        self._known = known
        self._end: Callable[[], None] = lambda: None

    def subscribe(self, notify: Callable[[], None]) -> None:
        self._end = self._statuses.subscribe(notify)
        notify()

    def read(self) -> health_pb2.HealthCheckResponse | None:
        if self._next is None and self._known:
            found = self._statuses.read(self._index)
            if found is not None:
                self._next, self._index = found
        if self._next is None:
            return None
        status, self._next = self._next, None
        return health_pb2.HealthCheckResponse(status=status)

    def close(self) -> None:
        self._end()
