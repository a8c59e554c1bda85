"""The service through which a node's own operator drives it, on a Unix socket in its `state_dir`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import grpc

from comity import version
from comity.errors import UnknownSession
from comity.node.registry import protocols_for
from comity.node.script import Script, parse_script
from comity.session.events import Event
from comity.session.watched import WatchedLog
from comity.wire.v1 import control_pb2 as pb
from comity.wire.v1 import control_pb2_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["Control"].full_name


class Operated(Protocol):
    """What an operator can do with a node."""

    party: str
    role: str
    address: str
    state_dir: Path

    def run(self, script: Script) -> str:
        """Starts a session; returns its identifier."""

    def events(self) -> dict[str, WatchedLog[Event]]:
        """The events of every session, by its identifier."""


class ControlServicer(control_pb2_grpc.ControlServicer):
    """Answers the operator.

    Args:
        node: The node.
    """

    def __init__(self, node: Operated) -> None:
        self._node = node

    def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.NodeDescription:  # noqa: ARG002, N802
        """Who this node is."""
        return pb.NodeDescription(
            party=self._node.party,
            role=self._node.role,
            version=version(),
            address=self._node.address,
            protocols=[each.name for each in protocols_for(self._node.role)],
            sessions=list(self._node.events()),
            pid=os.getpid(),
            state_dir=str(self._node.state_dir),
        )

    def Run(self, request: pb.RunRequest, context: grpc.ServicerContext) -> pb.RunReply:  # noqa: ARG002, N802
        """Starts a session."""
        script = parse_script(request.script)
        script.require_no_parties()
        return pb.RunReply(session=self._node.run(script))

    def Watch(self, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator[pb.SessionEvent]:  # noqa: N802
        """Gives a session's events as they happen."""
        events = self._node.events().get(request.session)
        if events is None:
            known = ", ".join(self._node.events()) or "none yet"
            raise UnknownSession("no such session at this node", expected=known, received=request.session)
        for index, event in enumerate(events.watch(request.skip, is_active=context.is_active), start=request.skip):
            yield event_to_proto(index, event)


def event_to_proto(index: int, event: Event) -> pb.SessionEvent:
    """Encodes an event."""
    message = pb.SessionEvent(index=index, round=event.round, kind=event.kind, fields=json.dumps(event.fields))
    message.time.FromDatetime(event.time)
    return message
