"""The operator's end of a node's control service. Imports no torch: it only talks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2

from comity.contract import Json
from comity.errors import ComityError, InvalidValue, PeerUnreachable
from comity.node.sessions.failures import raised
from comity.session.events import Event
from comity.transport.addresses import split_address
from comity.transport.diagnosis import diagnose
from comity.transport.identity import Identity
from comity.transport.retry import CONTROL_S, TRYING_S
from comity.transport.status import from_rpc_error
from comity.wire.v1 import control_pb2 as pb
from comity.wire.v1 import control_pb2_grpc

_OPTIONS = [("grpc.max_receive_message_length", -1)]
"""An operator's own node may answer with results and pictures of any size."""

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class ControlClient:
    """A connection to a node.

    Args:
        url: Where it is: `unix:PATH`, its control socket, or `PARTY@HOST:PORT`, its control port.
        operator: Who drives it, with a certificate that the node knows; for a control port alone.

    Raises:
        InvalidValue: A control port without an operator, or no address.
        MissingFile: A file of the operator's is not there.
    """

    def __init__(self, url: str, operator: Identity | None = None) -> None:
        self._url = url
        self._operator = operator
        self._party, _, self._address = "", "", url
        if not url.startswith("unix:"):
            self._party, _, self._address = url.rpartition("@")
        if self._party and operator is not None:
            split_address(self._address)
            names = [("grpc.ssl_target_name_override", self._party), ("grpc.default_authority", self._party), *_OPTIONS]
            credentials = operator.client_credentials(self._party)
            self._channel = grpc.secure_channel(self._address, credentials, names)
        elif url.startswith("unix:"):
            self._channel = grpc.insecure_channel(url, [("grpc.default_authority", "localhost"), *_OPTIONS])
        else:
            raise InvalidValue(
                "the node cannot be reached like this",
                expected="PARTY@HOST:PORT, with --operator",
                received=url,
                action="comity init operator makes what --operator takes",
            )
        self._stub = control_pb2_grpc.ControlStub(self._channel)

    def __enter__(self) -> Self:
        """Connects at the first call."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection."""
        self._channel.close()

    def describe(self) -> pb.NodeDescription:
        """Who the node is."""
        return self._call(self._stub.Describe, pb.DescribeRequest())

    def serving(self) -> bool:
        """Whether the node is ready, by the standard health service: it has started, and is not about to stop."""
        check = self._channel.unary_unary(
            f"/{health.SERVICE_NAME}/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        reply = self._call(check, health_pb2.HealthCheckRequest())
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def status(self) -> pb.NodeStatus:
        """One picture of the node."""
        return self._call(self._stub.GetStatus, pb.GetStatusRequest())

    def run(self, script: str) -> str:
        """Starts a session; returns its identifier."""
        return self._call(self._stub.Run, pb.RunRequest(script=script), TRYING_S).session

    def open(self, script: str) -> str:
        """Opens a session that many may join; returns its identifier."""
        return self._call(self._stub.Open, pb.OpenRequest(script=script), TRYING_S).session

    def join(self, acceptor: str, session: str) -> None:
        """Joins a session that another party has opened."""
        self._call(self._stub.Join, pb.JoinRequest(acceptor=acceptor, session=session), TRYING_S)

    def watch(self, session: str, skip: int = 0) -> Iterator[Event]:
        """The events of a session from index `skip` on, to its end."""
        try:
            for message in self._stub.Watch(pb.WatchRequest(session=session, skip=skip)):
                yield Event(message.kind, message.round, json.loads(message.fields), message.time.ToDatetime(UTC))
        except grpc.RpcError as failure:
            raise self._explained(failure) from failure

    def sessions(self) -> Sequence[pb.SessionSummary]:
        """Every session of the node, oldest first."""
        return self._call(self._stub.ListSessions, pb.ListSessionsRequest()).sessions

    def details(self, session: str) -> pb.SessionDetails:
        """One session."""
        return self._call(self._stub.ShowSession, pb.ShowSessionRequest(session=session))

    def cancel(self, session: str) -> bool:
        """Ends a session before its time; returns whether the other party was told."""
        return self._call(self._stub.Cancel, pb.CancelRequest(session=session)).peer_told

    def resume(self, session: str) -> None:
        """Goes on with a session that stopped."""
        self._call(self._stub.Resume, pb.ResumeRequest(session=session))

    def reload(self) -> pb.ReloadReply:
        """Has the node read its configuration again; says what is in force, and what waits for a restart."""
        return self._call(self._stub.Reload, pb.ReloadRequest())

    def call(self, session: str, call: str, **fields: Json) -> tuple[dict[str, Any], bytes]:
        """Asks something of a session that its protocol has to do with the operator; returns what is said, and its bytes."""
        reply = self._call(self._stub.Call, pb.CallRequest(session=session, call=call, fields=json.dumps(fields)))
        return json.loads(reply.fields), reply.data

    def accept(self, session: str) -> None:
        """Agrees to a proposal that waits for an operator."""
        self._call(self._stub.Accept, pb.AcceptRequest(session=session), TRYING_S)

    def refuse(self, session: str, reason: str = "") -> None:
        """Refuses a proposal that waits for an operator; the other party is told the reason."""
        self._call(self._stub.Refuse, pb.RefuseRequest(session=session, reason=reason))

    def _call(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Reply], request: Request, within_s: float = CONTROL_S
    ) -> Reply:
        try:
            return method(request, timeout=within_s)
        except grpc.RpcError as failure:
            raise self._explained(failure) from failure

    def _explained(self, failure: grpc.RpcError) -> ComityError:
        error = from_rpc_error(failure)
        if isinstance(error, PeerUnreachable) and self._operator is not None:
            return diagnose(self._address, self._party, self._operator, error.received or "")
        if isinstance(error, PeerUnreachable):
            return PeerUnreachable(
                "no node answers at the control socket",
                expected="a running node",
                received=self._url,
                action="start it, or name another with --node",
            )
        return error


def raise_failure(event: Event) -> None:
    """Raises the error that a `session-failed`, `-stopped`, `-cancelled` or `-refused` event tells of."""
    raise raised(event.fields)
