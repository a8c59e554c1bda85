"""What nodes serve to others than the peers of their sessions: a student its labels, a teacher what waits for review."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from comity.errors import InvalidValue
from comity.protocol.services import RunningService, ServiceContext, ServiceSettings, served
from teacher_votes.v1 import review_pb2
from teacher_votes.v1 import services_pb2 as pb

LABELS = pb.DESCRIPTOR.services_by_name["Labels"].full_name
REVIEW, CONFIRM = (review_pb2.DESCRIPTOR.services_by_name[name].full_name for name in ("Review", "Confirm"))


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
def serve_confirm(context: ServiceContext) -> Iterator[RunningService | None]:
    """Lets a student learn labels that wait, when somebody says so; students find it as their node's `confirm`."""
    desk = Desk()

    def learn(request: review_pb2.LearnRequest, call: grpc.ServicerContext) -> review_pb2.LearnReply:
        return review_pb2.LearnReply(round=desk.answer(request.session))

    with _serving(context, context.settings.confirm, f"{CONFIRM}/Learn", review_pb2.LearnRequest, learn) as running:
        yield None if running is None else RunningService(running.address, desk)


class Desk:
    """Where students wait for somebody."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[int, threading.Event]] = {}

    def question(self, session: str, round: int) -> threading.Event:
        """Is set once somebody has said that the labels of a round may be learned."""
        with self._lock:
            _, ready = self._waiting[session] = round, threading.Event()
        return ready

    def answer(self, session: str) -> int:
        """Says so of a session's labels that wait; returns their round, 0 where none do."""
        with self._lock:
            round, ready = self._waiting.pop(session, (0, threading.Event()))
        ready.set()
        return round


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
