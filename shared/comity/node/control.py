"""The service through which a node's own operator drives it: on a Unix socket in its `state_dir`, or on a port."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import grpc

from comity import version
from comity.contract import Json
from comity.node.control_messages import details_to_proto, event_to_proto, fields_of, status_to_proto, summary_to_proto
from comity.node.reloading import Reloaded
from comity.node.sessions.overview import SessionDetails, SessionSummary
from comity.node.sessions.script import Script, parse_script
from comity.node.status import NodeStatus
from comity.protocol.registry import usable_for
from comity.protocol.roles import OperatorReply
from comity.session.events import Event
from comity.session.replayable_stream import ReplayableStream
from comity.transport.streams import Streams, non_blocking
from comity.wire.v1 import control_pb2 as pb
from comity.wire.v1 import control_pb2_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["Control"].full_name


class Operated(Protocol):
    """What an operator can do with a node."""

    @property
    def party(self) -> str:
        """Whose it is."""

    @property
    def role(self) -> str:
        """What it does."""

    @property
    def address(self) -> str:
        """Where its peers reach it; empty where none can."""

    @property
    def state_dir(self) -> Path:
        """Where it keeps what it keeps."""

    def status(self) -> NodeStatus:
        """One picture of it."""

    def run(self, script: Script) -> str:
        """Starts a session; returns its identifier."""

    def open(self, script: Script) -> str:
        """Opens a session that many may join; returns its identifier."""

    def join(self, acceptor: str, session: str) -> None:
        """Joins a session that another party has opened."""

    def sessions(self) -> list[SessionSummary]:
        """Every session, oldest first."""

    def details(self, session: str) -> SessionDetails:
        """One session."""

    def events(self, session: str) -> ReplayableStream[Event]:
        """What happens in a session, from its beginning."""

    def cancel(self, session: str) -> bool:
        """Ends a session before its time; returns whether the other party was told."""

    def resume(self, session: str) -> None:
        """Goes on with a session that stopped."""

    @property
    def reload(self) -> Callable[[], Reloaded]:
        """Reads its configuration again."""

    def call(self, session: str, call: str, fields: Mapping[str, Json]) -> OperatorReply:
        """Asks something of a session's role that it has to do with its operator."""

    def approve(self, session: str) -> None:
        """Agrees to a proposal that waits for an operator."""

    def refuse(self, session: str, reason: str) -> None:
        """Refuses a proposal that waits for an operator, and has the other party told why."""


class _Events:
    """An operator who follows a session's events; see `Source`.

    Args:
        events: The events.
        skip: How many the operator has already.
    """

    def __init__(self, events: ReplayableStream[Event], skip: int) -> None:
        self._events = events
        self._index = skip
        self._end: Callable[[], None] | None = None

    def subscribe(self, notify: Callable[[], None]) -> None:
        """See `Source.subscribe`."""
        self._end = self._events.subscribe(notify)
        notify()

    def read(self) -> pb.SessionEvent | None:
        """See `Source.read`."""
        found = self._events.read(self._index)
        if found is None:
            return None
        event, self._index = found
        return event_to_proto(self._index - 1, event)

    def close(self) -> None:
        """See `Source.close`."""
        if self._end is not None:
            self._end()


class ControlServicer(control_pb2_grpc.ControlServicer):
    """Answers the operator.

    Args:
        node: The node.
        streams: Sends what an operator follows.
    """

    def __init__(self, node: Operated, streams: Streams) -> None:
        self._node = node
        self._streams = streams

    def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.NodeDescription:  # noqa: ARG002, N802
        """Who this node is."""
        return pb.NodeDescription(
            party=self._node.party,
            role=self._node.role,
            version=version(),
            address=self._node.address,
            protocols=[each.name for each in usable_for(self._node.role)],
            sessions=[each.session for each in self._node.sessions()],
            pid=os.getpid(),
            state_dir=str(self._node.state_dir),
        )

    def GetStatus(self, request: pb.GetStatusRequest, context: grpc.ServicerContext) -> pb.NodeStatus:  # noqa: ARG002, N802
        """One picture of the node."""
        return status_to_proto(self._node.status())

    def Run(self, request: pb.RunRequest, context: grpc.ServicerContext) -> pb.RunReply:  # noqa: ARG002, N802
        """Starts a session."""
        script = parse_script(request.script)
        script.require_no_parties()
        return pb.RunReply(session=self._node.run(script))

    def Open(self, request: pb.OpenRequest, context: grpc.ServicerContext) -> pb.OpenReply:  # noqa: ARG002, N802
        """Opens a session that many may join."""
        script = parse_script(request.script)
        script.require_no_parties()
        return pb.OpenReply(session=self._node.open(script))

    def Join(self, request: pb.JoinRequest, context: grpc.ServicerContext) -> pb.JoinReply:  # noqa: ARG002, N802
        """Joins a session that another party has opened."""
        self._node.join(request.acceptor, request.session)
        return pb.JoinReply()

    @non_blocking
    def Watch(  # type: ignore[override]  # noqa: N802
        self, request: pb.WatchRequest, context: grpc.ServicerContext, send: Callable[[pb.SessionEvent | None], None]
    ) -> None:
        """Gives a session's events as they happen."""
        self._streams.serve(_Events(self._node.events(request.session), request.skip), context, send)

    def ListSessions(self, request: pb.ListSessionsRequest, context: grpc.ServicerContext) -> pb.ListSessionsReply:  # noqa: ARG002, N802
        """Every session that the node keeps."""
        return pb.ListSessionsReply(sessions=map(summary_to_proto, self._node.sessions()))

    def ShowSession(self, request: pb.ShowSessionRequest, context: grpc.ServicerContext) -> pb.SessionDetails:  # noqa: ARG002, N802
        """One session."""
        return details_to_proto(self._node.details(request.session))

    def Cancel(self, request: pb.CancelRequest, context: grpc.ServicerContext) -> pb.CancelReply:  # noqa: ARG002, N802
        """Ends a session before its time."""
        return pb.CancelReply(peer_told=self._node.cancel(request.session))

    def Resume(self, request: pb.ResumeRequest, context: grpc.ServicerContext) -> pb.ResumeReply:  # noqa: ARG002, N802
        """Goes on with a session that stopped."""
        self._node.resume(request.session)
        return pb.ResumeReply()

    def Reload(self, request: pb.ReloadRequest, context: grpc.ServicerContext) -> pb.ReloadReply:  # noqa: ARG002, N802
        """Reads the node's configuration again."""
        found = self._node.reload()
        return pb.ReloadReply(applied=found.applied, restart=found.restart, trusted=found.trusted)

    def Call(self, request: pb.CallRequest, context: grpc.ServicerContext) -> pb.CallReply:  # noqa: ARG002, N802
        """Asks something of a session."""
        reply = self._node.call(request.session, request.call, fields_of(request.fields))
        return pb.CallReply(fields=json.dumps(reply.fields), data=reply.data)

    def Accept(self, request: pb.AcceptRequest, context: grpc.ServicerContext) -> pb.AcceptReply:  # noqa: ARG002, N802
        """Agrees to a proposal."""
        self._node.approve(request.session)
        return pb.AcceptReply()

    def Refuse(self, request: pb.RefuseRequest, context: grpc.ServicerContext) -> pb.RefuseReply:  # noqa: ARG002, N802
        """Refuses a proposal."""
        self._node.refuse(request.session, request.reason)
        return pb.RefuseReply()
