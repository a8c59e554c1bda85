"""A node as a process: serves its peers and its operator until it is told to stop."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
from types import FrameType

import structlog

from comity.errors import InvalidValue, NodeDraining, StorageFailed
from comity.node.asked import AskedSessions
from comity.node.asking import draft_contract
from comity.node.config import NodeConfig
from comity.node.control import SERVICE as CONTROL_SERVICE
from comity.node.control import ControlServicer
from comity.node.garbage import exclusive
from comity.node.helping import Helper
from comity.node.party import LocalParty, own_secret
from comity.node.registry import protocols_for
from comity.node.script import Script
from comity.session import faults
from comity.session.events import Event
from comity.session.hosting import HostedSessions
from comity.session.sql_store import SqlStore
from comity.session.watched import WatchedLog
from comity.transport import blobs, sessions
from comity.transport.server import NodeServer
from comity.wire.v1 import control_pb2_grpc, sessions_pb2_grpc

log = structlog.get_logger()


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
        self._protocols = protocols_for(role)
        self._draining = threading.Event()
        self._hosted = HostedSessions()

    def serve(self, stop: threading.Event) -> None:
        """Serves until `stop` is set, then drains.

        Raises:
            UsageError: The configuration cannot be used.
            StorageError: What the node keeps cannot be read.
        """
        config = self._config
        try:
            (config.state_dir / "blobs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            action = "make it writable, or configure another state_dir"
            raise StorageFailed(
                "state_dir cannot be used", expected="a writable folder", received=error, action=action
            ) from error
        with contextlib.ExitStack() as stack:
            stack.enter_context(exclusive(config.state_dir))
            store = stack.enter_context(contextlib.closing(SqlStore(config.store_url)))
            secret = own_secret(config, config.state_dir)
            self._local = LocalParty(config.party, config, secret, store, config.state_dir / "blobs")
            self._asked = AskedSessions(self._local, config)
            # Data are read before anybody is told that the node is there.
            samples = len(self._local.splits.train)
            self._serve_operator(stack)
            if any(each.helper == self.role for each in self._protocols):
                self._serve_peers(stack)
            self._asked.restore(self.role)
            address = self.address or None
            log.info("node-ready", party=self.party, role=self.role, address=address, samples=samples, pid=os.getpid())
            stop.wait()
            log.info("node-draining", party=self.party)
            self._draining.set()

    def run(self, script: Script) -> str:
        """Starts a session.

        Raises:
            ComityError: The script, or what it needs, is not to be had.
        """
        if self._draining.is_set():
            raise NodeDraining("the node is stopping", action="try again when it is back")
        contract, definition = draft_contract(script, self._local, f"s-{secrets.token_hex(6)}")
        if definition.asker != self.role:
            raise InvalidValue(
                "this node does not ask for help", expected=f"a {definition.asker} node", received=f"a {self.role} node"
            )
        self._asked.start(contract, definition)
        return contract.session

    def events(self) -> dict[str, WatchedLog[Event]]:
        """The events of every session since the node started, by its identifier."""
        return self._asked.events() | {each.contract.session: each.events for each in self._hosted.all()}

    def _serve_operator(self, stack: contextlib.ExitStack) -> None:
        server = NodeServer(None, [CONTROL_SERVICE])
        control_pb2_grpc.add_ControlServicer_to_server(ControlServicer(self), server.server)
        socket = self._config.control_socket
        if len(str(socket)) > 100:
            raise InvalidValue(
                "state_dir is too long for a Unix socket", expected="at most 100 characters", received=socket
            )
        # The lock says that nobody listens on it: what is there was left by a node that was killed.
        socket.unlink(missing_ok=True)
        server.start(f"unix:{socket}")
        socket.chmod(0o600)
        stack.callback(lambda: socket.unlink(missing_ok=True))
        stack.callback(server.stop, self._config.drain_s)

    def _serve_peers(self, stack: contextlib.ExitStack) -> None:
        if not self._config.listen:
            raise InvalidValue(
                "listen is missing",
                expected="host:port",
                received="nothing",
                action=f"a {self.role} node must be reachable",
            )
        services = [sessions.SERVICE, blobs.SERVICE, *(name for each in self._protocols for name in each.services)]
        identity = self._identity if self._identity.is_secure else None
        server = NodeServer(identity, services)
        helper = Helper(self._local, self.role, self._hosted)
        helper.restore()
        describe = sessions.describing(self.party, self.role, {each.name: each.version for each in self._protocols})
        sessions_pb2_grpc.add_SessionsServicer_to_server(
            sessions.SessionsServicer(self._hosted, helper.accept, helper.finish, self._local.signer, describe),
            server.server,
        )
        blobs.BlobServicer(lambda context: sessions.session_of(self._hosted, context)).add_to(server.server)
        for each in self._protocols:
            each.serve(server.server, self._hosted)
        self.address = server.start(self._config.listen)
        stack.callback(server.stop, self._config.drain_s)
        stack.callback(self._hosted.drain)


def run_daemon(role: str, config: NodeConfig) -> None:
    """Runs a node until SIGTERM or SIGINT.

    Raises:
        UsageError: The configuration cannot be used.
    """
    faults.install_from_environment()
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    Node(role, config).serve(stop)
