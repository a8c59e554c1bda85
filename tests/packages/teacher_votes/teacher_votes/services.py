"""What nodes serve to others than the peers of their sessions: a student its labels, a teacher what waits for review."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from comity.errors import InvalidValue
from comity.protocol.services import RunningService, ServiceContext, ServiceSettings, served
from teacher_votes.v1 import review_pb2
from teacher_votes.v1 import services_pb2 as pb

LABELS = pb.DESCRIPTOR.services_by_name["Labels"].full_name
REVIEW = review_pb2.DESCRIPTOR.services_by_name["Review"].full_name


@contextmanager
def serve_labels(context: ServiceContext) -> Iterator[RunningService | None]:
    """Serves the labels of sessions that ended."""

    def get(request: pb.GetRequest, call: grpc.ServicerContext) -> pb.GetReply:
        results = {path.parent.name: path for path in context.state_dir.glob("sessions/*/result.json")}
        if request.session not in results:
            raise InvalidValue("no such session has ended", expected=", ".join(results), received=request.session)
        labels = json.loads(results[request.session].read_text())["metrics"]["labels"]
        if request.request >= len(labels):
            raise InvalidValue("no such request was made", expected=f"below {len(labels)}", received=request.request)
        return pb.GetReply(label=labels[request.request])

    with _serving(context, context.settings.labels, f"{LABELS}/Get", pb.GetRequest, get) as running:
        yield running


@contextmanager
def serve_review(context: ServiceContext) -> Iterator[RunningService | None]:
    """Lets the votes of a session leave, when somebody says so."""

    def release(request: review_pb2.ReleaseRequest, call: grpc.ServicerContext) -> review_pb2.ReleaseReply:
        return review_pb2.ReleaseReply(round=context.in_session(request.session, lambda teacher: teacher.release()))

    with _serving(context, context.settings.review, f"{REVIEW}/Release", review_pb2.ReleaseRequest, release) as running:
        yield running


@contextmanager
def _serving(
    context: ServiceContext, settings: ServiceSettings, path: str, request: Any, answer: Callable[..., Any]
) -> Iterator[RunningService | None]:
    if not settings.listen:
        yield None
        return
    service, _, method = path.partition("/")
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        answer, request.FromString, lambda reply: reply.SerializeToString()
    )
    handlers = (grpc.method_handlers_generic_handler(service, {method: handler}),)
    with served(context, settings, [service], lambda server: server.add_generic_rpc_handlers(handlers)) as address:
        yield RunningService(address)
