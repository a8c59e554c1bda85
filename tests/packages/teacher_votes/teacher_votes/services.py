"""What nodes serve to others than the peers of their sessions: a student its labels, a teacher what waits for review."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from comity.errors import InvalidValue
from comity.protocol.services import ServiceContext
from comity.transport.identity import Identity
from comity.transport.server import NodeServer

from teacher_votes.v1 import services_pb2 as pb

LABELS, REVIEW = (pb.DESCRIPTOR.services_by_name[name].full_name for name in ("Labels", "Review"))


@contextmanager
def serve_labels(context: ServiceContext) -> Iterator[str | None]:
    """Serves the labels of sessions that ended, to those whom the node trusts."""

    def get(request: pb.GetRequest, call: grpc.ServicerContext) -> pb.GetReply:
        results = {path.parent.name: path for path in context.state_dir.glob("sessions/*/result.json")}
        if request.session not in results:
            raise InvalidValue("no such session has ended", expected=", ".join(results), received=request.session)
        labels = json.loads(results[request.session].read_text())["metrics"]["labels"]
        if request.request >= len(labels):
            raise InvalidValue("no such request was made", expected=f"below {len(labels)}", received=request.request)
        return pb.GetReply(label=labels[request.request])

    secure = context.identity if context.identity.is_secure else None
    with _serving(context, context.settings.labels, secure, LABELS, "Get", pb.GetRequest, get) as address:
        yield address


@contextmanager
def serve_review(context: ServiceContext) -> Iterator[str | None]:
    """Lets the votes of a session leave, when somebody on this machine says so."""

    def release(request: pb.ReleaseRequest, call: grpc.ServicerContext) -> pb.ReleaseReply:
        return pb.ReleaseReply(round=context.in_session(request.session, lambda teacher: teacher.release()))

    with _serving(context, context.settings.review, None, REVIEW, "Release", pb.ReleaseRequest, release) as address:
        yield address


@contextmanager
def _serving(
    context: ServiceContext,
    listen: str,
    identity: Identity | None,
    service: str,
    method: str,
    request: Any,
    answer: Callable[[Any, grpc.ServicerContext], Any],
) -> Iterator[str | None]:
    if not listen:
        yield None
        return
    server = NodeServer(identity, [service])
    handler = grpc.unary_unary_rpc_method_handler(
        answer, request.FromString, lambda reply: bytes(reply.SerializeToString())
    )
    server.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    address = server.start(listen)
    try:
        yield address
    finally:
        server.stop(context.drain_s)
