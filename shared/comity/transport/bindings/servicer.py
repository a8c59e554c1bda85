"""The gRPC service of declared calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from comity.session.session_registry import SessionRegistry
from comity.transport.bindings.conversation import Conversing, Requests
from comity.transport.bindings.dispatcher import Following, dispatch
from comity.transport.calls import Stream, Unary
from comity.transport.methods import Method
from comity.transport.service import Service
from comity.transport.sessions import session_of
from comity.transport.streams import Streams, non_blocking


def serve(service: Service, protocol: str, sessions: SessionRegistry, server: grpc.Server, streams: Streams) -> None:
    """Registers a protocol's calls.

    Args:
        service: The calls.
        protocol: The protocol's name.
        sessions: The node's sessions.
        server: Where they are served.
        streams: Sends what callers follow.
    """
    handlers = {name: _handler(method, protocol, sessions, streams) for name, method in service.methods.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, handlers),))


def _handler(
    method: Method, protocol: str, sessions: SessionRegistry, streams: Streams
) -> grpc.RpcMethodHandler[Any, Any]:
    if isinstance(method.call, Unary):
        return _answered(method, protocol, sessions)
    if isinstance(method.call, Stream):
        return _conversed(method, protocol, sessions, streams)
    return _followed(method, protocol, sessions, streams)


def _conversed(
    method: Method, protocol: str, sessions: SessionRegistry, streams: Streams
) -> grpc.RpcMethodHandler[Any, Any]:
    @non_blocking
    def converse(requests: Requests, context: grpc.ServicerContext, send: Callable[[Message | None], None]) -> None:
        streams.serve(Conversing(session_of(sessions, context, protocol), method, requests), context, send)

    return grpc.stream_stream_rpc_method_handler(
        converse, method.request_type.FromString, method.answer_type.SerializeToString
    )


def _answered(method: Method, protocol: str, sessions: SessionRegistry) -> grpc.RpcMethodHandler[Any, Any]:
    def answer(request: Message, context: grpc.ServicerContext) -> Message:
        return dispatch(session_of(sessions, context, protocol), method, request, attached=True)

    return grpc.unary_unary_rpc_method_handler(
        answer, method.request_type.FromString, method.answer_type.SerializeToString
    )


def _followed(
    method: Method, protocol: str, sessions: SessionRegistry, streams: Streams
) -> grpc.RpcMethodHandler[Any, Any]:
    @non_blocking
    def follow(request: Message, context: grpc.ServicerContext, send: Callable[[Message | None], None]) -> None:
        following = Following(session_of(sessions, context, protocol), method, request, attached=True)
        streams.serve(following, context, send)

    return grpc.unary_stream_rpc_method_handler(
        follow, method.request_type.FromString, method.answer_type.SerializeToString
    )
