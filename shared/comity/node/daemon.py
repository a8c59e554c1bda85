"""A node as a process: serves its peers and its operator until it is told to stop."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import structlog

from comity.errors import ComityError, InvalidValue, NodeDraining, StateInUse
from comity.node.asking import draft_contract, run_session
from comity.node.config import NodeConfig
from comity.node.control import SERVICE as CONTROL_SERVICE
from comity.node.control import ControlServicer
from comity.node.helping import Helper
from comity.node.party import LocalParty, own_secret
from comity.node.registry import protocols_for
from comity.node.script import Script
from comity.session.events import Event
from comity.session.hosting import HostedSessions
from comity.session.ledger import MemoryLedger
from comity.session.watched import WatchedLog
from comity.transport import blobs, sessions
from comity.transport.link import Link
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
        self._config = config
        self._identity = config.identity
        config.state_dir.mkdir(parents=True, exist_ok=True)
        self._local = LocalParty(config.party, config, own_secret(config, config.state_dir), MemoryLedger())
        self._hosted = HostedSessions()
        self._asked: dict[str, WatchedLog[Event]] = {}
        self._threads: list[threading.Thread] = []
        self._protocols = protocols_for(role)
        self._draining = threading.Event()

    def serve(self, stop: threading.Event) -> None:
        """Serves until `stop` is set, then drains.

        Raises:
            UsageError: The configuration cannot be used.
        """
        # Data are read before anybody is told that the node is there.
        samples = len(self._local.splits.train)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_exclusive(self._config.state_dir))
            self._serve_operator(stack)
            if any(each.helper == self.role for each in self._protocols):
                self._serve_peers(stack)
            log.info(
                "node-ready",
                party=self.party,
                role=self.role,
                address=self.address or None,
                samples=samples,
                pid=os.getpid(),
            )
            stop.wait()
            log.info("node-draining", party=self.party)
            self._draining.set()

    def run(self, script: Script) -> str:
        """Starts a session in a thread of its own.

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
        helper = contract.helpers[0]
        if helper not in self._config.peers:
            known = ", ".join(self._config.peers) or "none"
            raise InvalidValue(
                "session.helpers names an unknown peer",
                expected=known,
                received=helper,
                action=f"configure [peers.{helper}] with its address",
            )
        if contract.session in self._asked:
            raise InvalidValue("the session's id is taken", expected="a new id", received=contract.session)
        events: WatchedLog[Event] = WatchedLog()
        self._asked[contract.session] = events

        def observe(event: Event) -> None:
            log.info(event.kind, session=contract.session, round=event.round, **event.fields)
            events.append(event)

        def work() -> None:
            try:
                link = Link(self._identity, helper, self._config.peers[helper].address, self._config.link_patience)
                with link:
                    result, outcome = run_session(contract, definition, self._local, link, observe)
                folder = self._config.state_dir / "sessions" / contract.session
                folder.mkdir(parents=True, exist_ok=True)
                for index, model in enumerate(outcome.models):
                    name = "model.safetensors" if len(outcome.models) == 1 else f"model-{index}.safetensors"
                    (folder / name).write_bytes(model.data)
                (folder / "result.json").write_text(json.dumps(result.to_json(), indent=2))
                observe(Event("session-finished", 0, {"result": result.to_json(), "folder": str(folder.resolve())}))
            except ComityError as error:
                observe(Event("session-failed", 0, failure(error)))
            except Exception as error:
                log.exception("session-failed", session=contract.session)
                observe(Event("session-failed", 0, {"reason": "", "what": f"{type(error).__name__}: {error}"}))
            finally:
                events.close()

        thread = threading.Thread(target=work, name=f"session-{contract.session}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return contract.session

    def events(self) -> dict[str, WatchedLog[Event]]:
        """The events of every session, by its identifier."""
        return self._asked | {each.contract.session: each.events for each in self._hosted.all()}

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
        sessions_pb2_grpc.add_SessionsServicer_to_server(
            sessions.SessionsServicer(self._hosted, helper.accept), server.server
        )
        blobs.BlobServicer(lambda context: sessions.session_of(self._hosted, context)).add_to(server.server)
        for each in self._protocols:
            each.serve(server.server, self._hosted)
        self.address = server.start(self._config.listen)
        stack.callback(server.stop, self._config.drain_s)
        stack.callback(self._hosted.drain)


@contextlib.contextmanager
def _exclusive(state_dir: Path) -> Iterator[None]:
    """Holds the lock of a state directory; the system lets go of it when the process ends, however it ends."""
    with (state_dir / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            action = "stop it, or configure another state_dir"
            raise StateInUse(
                "another node works in this state_dir",
                expected="a folder of its own",
                received=state_dir,
                action=action,
            ) from error
        yield


def failure(error: ComityError) -> dict[str, str]:
    """An error as fields, from which the other end raises it again."""
    fields = {"reason": error.reason(), "what": error.what, "action": error.action}
    return fields | {
        name: value for name, value in (("expected", error.expected), ("received", error.received)) if value
    }


def run_daemon(role: str, config: NodeConfig) -> None:
    """Runs a node until SIGTERM or SIGINT.

    Raises:
        UsageError: The configuration cannot be used.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    Node(role, config).serve(stop)
