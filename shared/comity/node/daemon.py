"""A node as a process: serves its peers and its operator until it is told to stop."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import signal
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from types import FrameType

import structlog

from comity import faults
from comity.contract import Contract
from comity.errors import ComityError, InvalidValue, NodeDraining, UnsupportedProtocol
from comity.ledger.ledger import Crossed
from comity.node.config import NodeConfig
from comity.node.control import SERVICE as CONTROL_SERVICE
from comity.node.control import ControlServicer
from comity.node.garbage import occupied
from comity.node.page import page
from comity.node.party import LocalParty
from comity.node.sessions.acceptor import Acceptor
from comity.node.sessions.initiated import InitiatedSessions
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.lines import Lines
from comity.node.sessions.overview import SessionDetails, SessionSummary, detailed, past_events, summarized
from comity.node.sessions.script import Script
from comity.node.status import NodeStatus, Running, status_of
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol, unusable, usable_for
from comity.protocol.services import ServiceContext, Services
from comity.session.events import Event
from comity.session.replayable_stream import ReplayableStream
from comity.session.session_registry import SessionRegistry
from comity.store.leases import Leases, owner_in
from comity.store.sql_store import SqlStore
from comity.transport import blobs, sessions
from comity.transport.addresses import socket_url
from comity.transport.bindings.servicer import serve
from comity.transport.description import describing
from comity.transport.identity import Identity
from comity.transport.server import NodeServer
from comity.wire.v1 import control_pb2_grpc, sessions_pb2_grpc

log = structlog.get_logger()

_LOOK_S = 5.0
"""How often it is looked whether something has waited too long, in seconds."""


class Node:
    """A party's daemon.

    Args:
        role: What it does: the role of the protocols that it takes part in.
        config: Its configuration.
    """

    def __init__(self, role: str, config: NodeConfig) -> None:
        self.party = config.party
        self.role = role
        self.address = ""
        self.state_dir = config.state_dir.resolve()
        self._config = config
        self._identity = config.identity
        self._protocols = usable_for(role)
        self._draining = threading.Event()
        self._controls: list[NodeServer] = []
        self._started = datetime.now(UTC)
        self._page = ""

    def serve(self, stop: threading.Event) -> None:
        """Serves until `stop` is set, then drains.

        Raises:
            UsageError: The configuration cannot be used.
            StorageError: What the node keeps cannot be read.
        """
        config = self._config
        with contextlib.ExitStack() as stack:
            stack.enter_context(occupied(config.state_dir))
            store = stack.enter_context(contextlib.closing(SqlStore(config.store_url, party=config.party)))
            left_out = unusable(implementations=True)
            for each in left_out:
                log.warning("protocol-unusable", package=each.package, protocol=each.name, error=str(each))
            if not self._protocols:
                raise UnsupportedProtocol(
                    f"there is no protocol for a {self.role} to take part in",
                    received="; ".join(map(str, left_out)) or "none installed",
                    action="comity check lists the protocols that can be used here",
                )
            secrets = config.secrets(config.state_dir)
            self._local = LocalParty(config.party, config, secrets, store, config.state_dir)
            self._local.leases = stack.enter_context(contextlib.closing(Leases(store, owner_in(config.state_dir))))
            self._initiated = InitiatedSessions(self._local, config)
            self._hosted = SessionRegistry(store)
            self._acceptor = Acceptor(self._local, self.role, self._hosted)
            # Before there are sessions, whose roles may have to do with them.
            services = Services()
            services.start(stack, self.role, self._protocols, self._service_context)
            self._local.services = services.handles
            # Data are read before anybody is told that the node is there.
            samples = self._local.holdings.count
            # Whoever asks the operator's service is told where it is.
            if config.web.enabled:
                self._page = stack.enter_context(page(self, config.web.listen, self.state_dir)).url
            self._serve_operators(stack)
            if any(each.acceptor == self.role for each in self._protocols):
                self._serve_peers(stack)
            self._initiated.restore(self.role)
            address = self.address or None
            for note in self._local.holdings.notes:
                log.warning("data-note", what=note)
            self._say_ready(ready=True)
            log.info("node-ready", party=self.party, role=self.role, address=address, samples=samples, pid=os.getpid())
            while not stop.wait(_LOOK_S):
                self._expire()
            log.info("node-draining", party=self.party)
            self._draining.set()
            self._page = ""
            self._say_ready(ready=False)

    def _say_ready(self, *, ready: bool) -> None:
        """Says, to who asks an operator's service for its health, whether the whole node is there."""
        for server in self._controls:
            server.say_serving(serving=ready)

    def _expire(self) -> None:
        """Ends what has waited longer than the policy lets it, and tries again what stopped."""
        now = datetime.now(UTC)
        try:
            self._initiated.expire(now)
            self._initiated.take_up()
            self._acceptor.expire(now)
            self._acceptor.look_at_data()
        except ComityError as error:
            # Its turn comes again.
            log.warning("expiry-failed", error=str(error))

    def _service_context(self, definition: ProtocolDefinition) -> ServiceContext:
        settings = self._config.settings_of(definition)
        in_session = partial(self._hosted.in_session, definition.name)
        return ServiceContext(self.party, self.role, settings, self._identity, self.state_dir, in_session)

    def run(self, script: Script) -> str:
        """Starts a session.

        Raises:
            ComityError: The script, or what it needs, is not to be had.
        """
        contract, definition = self._drafted(script)
        if definition.initiator != self.role:
            raise InvalidValue(
                "this node does not ask for help",
                expected=f"a {definition.initiator} node",
                received=f"a {self.role} node",
                action=f"run the script at the {definition.initiator}'s node; comity watch follows it here",
            )
        if definition.topology.is_joined:
            raise InvalidValue(
                f"{definition.name} is joined, not run",
                expected="a protocol that one party asks for",
                received=definition.name,
                action=f"comity open SCRIPT at the {definition.acceptor}'s node, then comity join at each {definition.initiator}'s",
            )
        self._initiated.start(contract, definition)
        return contract.session

    def _drafted(self, script: Script) -> tuple[Contract, ProtocolDefinition]:
        if self._draining.is_set():
            raise NodeDraining("the node is stopping", action="try again when it is back")
        return draft_contract(script, self._local, f"s-{secrets.token_hex(6)}")

    def status(self) -> NodeStatus:
        """One picture of the node at this moment.

        Raises:
            StorageError: What it keeps cannot be read.
        """
        queues = self._hosted.queues()
        active = frozenset(self._running())
        running = Running(self.role, self.address, self.state_dir, self._started, active, queues, self._page)
        return status_of(self._local, running)

    def sessions(self) -> list[SessionSummary]:
        """Every session that the node keeps, oldest first."""
        return summarized(self._local.store, self._running())

    def details(self, session: str) -> SessionDetails:
        """One session.

        Raises:
            InvalidValue: There is none of that identifier.
        """
        return detailed(self._local.store, self._running(), session)

    def history(self, session: str) -> list[Event]:
        """What is left to tell of a session: its finished rounds, and how it stands.

        Raises:
            InvalidValue: There is none of that identifier.
        """
        return past_events(self._local.store, session)

    def crossed_today(self) -> Sequence[Crossed]:
        """What left and came since midnight, UTC."""
        return self._local.store.crossed(datetime.now(UTC).date().isoformat())

    def events(self, session: str) -> ReplayableStream[Event]:
        """What happens in a session, from its beginning.

        Raises:
            InvalidValue: There is none of that identifier.
        """
        asked = self._initiated.find(session)
        events = self._acceptor.events(session) if asked is None else asked.events
        if events is not None:
            return events
        past: ReplayableStream[Event] = ReplayableStream()
        for event in past_events(self._local.store, session):
            past.append(event)
        past.close()
        return past

    def cancel(self, session: str) -> bool:
        """Ends a session before its time; returns whether the other party was told, or will be at its next call.

        Raises:
            InvalidValue: It is not on.
        """
        return self._acceptor.cancel(session) or self._initiated.cancel(session)

    def open(self, script: Script) -> str:
        """Opens a session that many may join; returns its identifier.

        Raises:
            ComityError: The script, or what it needs, is not to be had.
        """
        contract, definition = self._drafted(script)
        if definition.acceptor != self.role or not definition.topology.is_joined:
            raise InvalidValue(
                "this node opens no such session",
                expected=f"a {definition.acceptor} node, and a protocol that many join",
                received=f"a {self.role} node and {definition.name}",
                action="a session that one party asks for begins with comity run, at its node",
            )
        self._acceptor.open(contract, definition)
        return contract.session

    def join(self, acceptor: str, session: str) -> None:
        """Joins a session that another party has opened.

        Raises:
            ComityError: There is none, or it is not for this node.
        """
        # By name, or by the address that is configured for it.
        names = {peer.address: name for name, peer in self._config.peers.items()}
        with Lines(self._config).to(names.get(acceptor, acceptor)) as connection:
            contract, definition = sessions.fetch(connection, session, protocol)
        if definition.initiator != self.role:
            raise InvalidValue(
                "this node does not join such a session",
                expected=f"a {definition.initiator} node",
                received=f"a {self.role} node",
                action=f"join at a {definition.initiator}'s node",
            )
        self._initiated.start(contract, definition)

    def resume(self, session: str) -> None:
        """Goes on with a session that stopped.

        Raises:
            InvalidValue: There is nothing to go on with.
        """
        self._initiated.resume(session)

    def approve(self, session: str) -> None:
        """Agrees to a proposal that waits for an operator.

        Raises:
            InvalidValue: There is none of that identifier.
            RefusedError: It does not fit this node any more.
        """
        self._acceptor.approve(session)

    def refuse(self, session: str, reason: str) -> None:
        """Refuses a proposal that waits for an operator, and has the other party told why.

        Raises:
            InvalidValue: There is none of that identifier.
        """
        self._acceptor.refuse(session, reason)

    def _running(self) -> set[str]:
        return self._initiated.running() | self._hosted.names

    def _serve_operators(self, stack: contextlib.ExitStack) -> None:
        socket = self._config.control_socket
        if len(str(socket)) > 100:
            raise InvalidValue(
                "state_dir is too long for a Unix socket",
                expected="at most 100 characters",
                received=socket,
                action="configure a state_dir with a shorter path",
            )
        # The lock says that nobody listens on it: what is there was left by a node that was killed.
        socket.unlink(missing_ok=True)
        stack.callback(lambda: socket.unlink(missing_ok=True))
        self._serve_control(stack, None, socket_url(socket))
        socket.chmod(0o600)
        if self._config.control.listen:
            # Empty until somebody may drive the node; comity trust add --operator fills it while the node runs.
            self._config.control.operators.mkdir(parents=True, exist_ok=True)
            self._serve_control(stack, self._config.operator_identity, self._config.control.listen)

    def _serve_control(self, stack: contextlib.ExitStack, identity: Identity | None, address: str) -> None:
        server = NodeServer(identity, [CONTROL_SERVICE])
        control_pb2_grpc.add_ControlServicer_to_server(ControlServicer(self, server.streams), server.server)
        log.info("control-ready", address=server.start(address, ready=False))
        self._controls.append(server)
        stack.callback(server.stop, self._config.drain_s)

    def _serve_peers(self, stack: contextlib.ExitStack) -> None:
        if not self._config.listen:
            raise InvalidValue(
                "listen is missing",
                expected="host:port",
                received="nothing",
                action=f"a {self.role} node must be reachable",
            )
        services = [sessions.SERVICE, blobs.SERVICE, *(each.load().service.name for each in self._protocols)]
        identity = self._identity if self._identity.is_secure else None
        server = NodeServer(identity, services, limits=self._config.limits)
        self._acceptor.restore()
        describe = describing(self.party, self.role, {each.name: each.version for each in self._protocols})
        sessions_pb2_grpc.add_SessionsServicer_to_server(
            sessions.SessionsServicer(self._hosted, self._acceptor, self._local.signer, describe),
            server.server,
        )
        blobs.BlobServicer(lambda context: sessions.session_of(self._hosted, context)).add_to(server.server)
        for each in self._protocols:
            serve(each.load().service, each.name, self._hosted, server.server, server.streams)
        self.address = server.start(self._config.listen)
        stack.callback(server.stop, self._config.drain_s)
        stack.callback(self._acceptor.drain)


def _open_more_files() -> None:
    """Lets this process open as many files as it may: connections are files, too, and the usual limit is a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_daemon(role: str, config: NodeConfig) -> None:
    """Runs a node until SIGTERM or SIGINT.

    Raises:
        UsageError: The configuration cannot be used.
    """
    faults.install_from_environment()
    # What a node makes is for its own user: also its socket, from the moment that it is bound.
    os.umask(0o077)
    _open_more_files()
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    Node(role, config).serve(stop)
