"""All parties of a session as nodes of this process, with a proxy on every line: what happens on a line is a test's to say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.node.config import NodeConfig
from comity.node.control_client import ControlClient
from comity.node.daemon import Node
from comity.node.operations import Operations
from comity.node.sessions.script import Script
from comity.transport.addresses import socket_url
from tests.e2e.conftest import until
from tests.ledgers import Charges, charged_once, kept
from tests.proxy import Proxy, proxying

DEADLINE_S = 60.0
RETRY = {"call_s": 3.0, "retry_s": 60.0}


@contextmanager
def in_a_thread(role: str, values: dict[str, Any]) -> Iterator[Operations]:
    """A node of this process, where a test can change what it does; ready, and stopped at the end."""
    node = Node(role, NodeConfig(**values))
    stop = threading.Event()
    thread = threading.Thread(target=node.serve, args=(stop,), name=f"{role} node")
    thread.start()
    try:
        socket = values["state_dir"] / "control.sock"
        ready = (lambda: node.addresses.peers) if values.get("listen") else socket.exists
        until(lambda: ready() or not thread.is_alive(), f"{values['party']} serves")
        with ControlClient(socket_url(socket)) as control:
            until(lambda: not thread.is_alive() or control.serving(), f"{values['party']} is ready")
        assert node.operations is not None
        yield node.operations
    finally:
        stop.set()
        thread.join(DEADLINE_S)


@dataclass(frozen=True)
class Network:
    """A session's parties and the lines between them.

    Attributes:
        script: The session.
        lines: The proxies, by initiator and acceptor.
        clients: Each party's operator.
    """

    script: Script
    lines: dict[tuple[str, str], Proxy]
    clients: dict[str, ControlClient]

    @property
    def proxies(self) -> list[Proxy]:
        """All lines."""
        return list(self.lines.values())

    def run(self) -> dict[str, Any]:
        """Runs the session to its end; what it came to."""
        with SessionProgress(quiet=True) as progress:
            return drive(self.script, self.clients, progress)[0]


@contextmanager
def network(script: Script, folder: Path, **config: Any) -> Iterator[Network]:
    """A session's parties in plaintext, and no session yet.

    Args:
        script: The session.
        folder: Where they keep their states.
        config: What all configurations have beside what the script says.
    """
    acceptors = script.session.acceptors
    with ExitStack() as stack:
        lines: dict[tuple[str, str], Proxy] = {}
        addresses: dict[str, str] = {}
        for name in sorted(script.party, key=lambda each: each not in acceptors):
            section = script.party[name]
            values = section.model_dump(mode="json", exclude_unset=True, exclude={"role", "secret"})
            secret = section.secret.get_secret_value() if section.secret else f"{name}-{script.session.seed}"
            values |= {"privacy": section.privacy.model_dump(mode="json"), "secret": secret, "retry": RETRY}
            values |= {"party": name, "state_dir": folder / name, "insecure": True, "drain_s": 0.0} | config
            if name in acceptors:
                values["listen"] = "127.0.0.1:0"
            else:
                for peer in acceptors:
                    lines[name, peer] = stack.enter_context(proxying(addresses[peer]))
                values["peers"] = {peer: {"address": lines[name, peer].address} for peer in acceptors}
            addresses[name] = stack.enter_context(in_a_thread(section.role, values)).address
        sockets = {name: socket_url(folder / name / "control.sock") for name in script.party}
        clients = {name: stack.enter_context(ControlClient(url)) for name, url in sockets.items()}
        yield Network(script, lines, clients)


def charges_in(script: Script, folder: Path) -> Charges:
    """What the parties of a network charged: once, as both ledgers say."""
    return charged_once(script, {party: kept(folder / party) for party in script.party})
