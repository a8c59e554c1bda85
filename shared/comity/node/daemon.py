"""A node as a process: serves its peers and its operator until it is told to stop."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType

import structlog

from comity import faults
from comity.errors import ComityError, InvalidValue, UnsupportedProtocol
from comity.node.config import NodeConfig, load_config
from comity.node.control import SERVICE as CONTROL_SERVICE
from comity.node.control import ControlServicer
from comity.node.garbage import crash_of_the_last, marked_running, occupied, was_killed
from comity.node.monitoring import metrics
from comity.node.operations import Addresses, Operations
from comity.node.page import page
from comity.node.party import LocalParty
from comity.node.reloading import Reloaded, reload
from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.acceptor import Acceptor
from comity.node.sessions.initiated import InitiatedSessions
from comity.node.tracing import tracing
from comity.node.tracking import tracking
from comity.node.trials.apart import Trials
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import unusable, usable_for
from comity.protocol.services import ServiceContext, Services
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
        source: The file that it was read from, which `reload` reads again; None where there is none.

    Attributes:
        addresses: Where it can be reached.
        operations: What can be asked of it; None before it has begun to start.
    """

    def __init__(self, role: str, config: NodeConfig, source: Path | None = None) -> None:
        self.party = config.party
        self.role = role
        self.addresses = Addresses()
        self.operations: Operations | None = None
        self._config = config
        self._source = source
        self._reloading = threading.Lock()
        self._identity = config.identity
        self._protocols = usable_for(role)
        self._draining = threading.Event()
        self._controls: list[NodeServer] = []
        self._servers: list[NodeServer] = []
        self._at_reload: list[Callable[[], None]] = []
        self._peers_server: NodeServer | None = None

    def serve(self, stop: threading.Event) -> None:
        """Serves until `stop` is set, then drains.

        Raises:
            UsageError: The configuration cannot be used.
            StorageError: What the node keeps cannot be read.
        """
        with contextlib.ExitStack() as stack:
            # A configuration that is read again meanwhile waits until there is what it is for.
            with self._reloading:
                self._start(stack)
            while not stop.wait(_LOOK_S):
                self._expire()
            log.info("node-draining", party=self.party)
            self._draining.set()
            if self._local.trials is not None:
                self._local.trials.end()
            self.addresses.page = ""
            self._say_ready(ready=False)

    def _start(self, stack: contextlib.ExitStack) -> None:
        """Starts all that there is of a node; what the stack keeps ends it."""
        config = self._config
        stack.enter_context(occupied(config.state_dir))
        if (crash := crash_of_the_last(config.state_dir)) is not None:
            log.error("node-crashed", party=self.party, crash_file=str(crash), action="please report it")
        elif was_killed(config.state_dir):
            action = (
                "if the system did it for its memory (exit code 137), give it more, or lower policy.max_memory_bytes"
            )
            log.warning("node-was-killed", party=self.party, action=action)
        stack.enter_context(marked_running(config.state_dir))
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
        self._local.trials = Trials(config.party, config, config.state_dir)
        self._local.leases = stack.enter_context(contextlib.closing(Leases(store, owner_in(config.state_dir))))
        self._initiated = InitiatedSessions(self._local, config)
        stack.callback(self._initiated.stop)
        self._at_reload.append(self._initiated.end_untrusted)
        self._accepted = AcceptedSessions(self._local, self.role, SessionRegistry(store))
        self._acceptor = Acceptor(self._local, self._accepted)
        # Before there are sessions, whose roles may have to do with them.
        services = Services()
        services.start(stack, self.role, self._protocols, self._service_context)
        self._local.services = services.handles
        # Data are read before anybody is told that the node is there.
        samples = self._local.holdings.count
        parts = (self._local, self._initiated, self._acceptor, self._accepted)
        operations = Operations(self.role, config, *parts, self.addresses, self._draining, self.reload)
        self.operations = operations
        # Whoever asks the operator's service is told where it is.
        if config.web.enabled:
            self.addresses.page = stack.enter_context(page(operations, config.web.listen, operations.state_dir)).url
        stack.enter_context(tracing(config.traces.endpoint, config.party, self.role, self._local.watchers))
        stack.enter_context(tracking(config.tracking, config.party, self._local.watchers))
        if config.metrics.enabled:
            self.addresses.metrics = stack.enter_context(metrics(operations, self._local.watchers, config.metrics))
        self._serve_operators(stack, operations)
        if any(each.acceptor == self.role for each in self._protocols):
            self._serve_peers(stack)
        self._initiated.restore(self.role)
        address = self.addresses.peers or None
        for note in self._local.holdings.notes:
            log.warning("data-note", what=note)
        log.info("node-ready", party=self.party, role=self.role, address=address, samples=samples, pid=os.getpid())
        self._say_ready(ready=True)

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
            self._accepted.expire(now)
            self._accepted.look_at_data()
        except ComityError as error:
            # Its turn comes again.
            log.warning("expiry-failed", error=str(error))

    def _service_context(self, definition: ProtocolDefinition) -> ServiceContext:
        settings = self._config.settings_of(definition)
        in_session = partial(self._accepted.active.in_session, definition.name)
        return ServiceContext(
            self.party, self.role, settings, self._identity, self._config.state_dir.resolve(), in_session, self._servers
        )

    def reload(self) -> Reloaded:
        """Reads its configuration again, and takes over what may change while it runs; says what waits for a restart.

        Raises:
            UsageError: The file cannot be used; the node goes on as it was.
        """
        if self._source is None:
            raise InvalidValue(
                "this node was not started from a file", expected="a configuration file", received="none"
            )
        with self._reloading:
            latest = load_config(type(self._config), self._source)
            if latest.party != self.party:
                raise InvalidValue(
                    f"{self._source} is another party's",
                    expected=self.party,
                    received=latest.party,
                    action="restart the node to make it another's",
                )
            # Before anything is taken over: it may fail, and nothing is then changed.
            trusted: tuple[str, ...] = ()
            if self._identity.is_secure:
                trusted = tuple(sorted(each for each in self._identity.trusted().validity() if each))
            applied, restart = reload(self._config, latest)
            self._identity = self._config.identity
            if self._peers_server is not None:
                self._peers_server.take_limits(self._config.limits)
            for server in self._servers:
                server.revoke(self._identity.revoked)
            for follow in self._at_reload:
                follow()
        log.info("configuration-reloaded", applied=applied, restart=restart, trusted=len(trusted))
        return Reloaded(applied, restart, trusted)

    def reload_in_background(self) -> None:
        """The same for who hears nothing of it but the log: SIGHUP."""

        def read() -> None:
            try:
                self.reload()
            except ComityError as error:
                log.warning("configuration-not-reloaded", error=str(error))

        threading.Thread(target=read, name="reload", daemon=True).start()

    def _serve_operators(self, stack: contextlib.ExitStack, operations: Operations) -> None:
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
        self._serve_control(stack, operations, None, socket_url(socket))
        socket.chmod(0o600)
        if self._config.control.listen:
            # Empty until somebody may drive the node; comity trust add --operator fills it while the node runs.
            self._config.control.operators.mkdir(parents=True, exist_ok=True)
            self._serve_control(stack, operations, self._config.operator_identity, self._config.control.listen)

    def _serve_control(
        self, stack: contextlib.ExitStack, operations: Operations, identity: Identity | None, address: str
    ) -> None:
        server = NodeServer(identity, [CONTROL_SERVICE])
        control_pb2_grpc.add_ControlServicer_to_server(ControlServicer(operations, server.streams), server.server)
        log.info("control-ready", address=server.start(address, ready=False))
        self._controls.append(server)
        self._servers.append(server)
        stack.callback(self._drain, server)

    def _drain(self, server: NodeServer) -> None:
        """Stops a server, in the time that the configuration gives its calls by then."""
        server.stop(self._config.drain_s)

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
        self._accepted.restore()
        describe = describing(self.party, self.role, {each.name: each.version for each in self._protocols})
        sessions_pb2_grpc.add_SessionsServicer_to_server(
            sessions.SessionsServicer(self._accepted.active, self._acceptor, self._local.signer, describe),
            server.server,
        )
        blobs.BlobServicer(lambda context: sessions.with_blobs(self._accepted.active, self._acceptor, context)).add_to(
            server.server
        )
        for each in self._protocols:
            serve(each.load().service, each.name, self._accepted.active, server.server, server.streams)
        self.addresses.peers = server.start(self._config.listen)
        self._peers_server = server
        self._servers.append(server)
        stack.callback(self._drain, server)
        stack.callback(self._accepted.drain)


def _open_more_files() -> None:
    """Lets this process open as many files as it may: connections are files, too, and the usual limit is a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_daemon(role: str, config: NodeConfig, source: Path | None = None) -> None:
    """Runs a node until SIGTERM or SIGINT; SIGHUP has it read its configuration again.

    Args:
        role: What it does.
        config: Its configuration.
        source: The file that it was read from.

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
    node = Node(role, config, source)

    def on_hangup(number: int, frame: FrameType | None) -> None:
        del number, frame
        node.reload_in_background()

    signal.signal(signal.SIGHUP, on_hangup)
    node.serve(stop)
