"""A script's parties as processes of one machine: real daemons, real sockets, certificates made for the occasion."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from comity.errors import NodeProcessFailed, PeerUnreachable
from comity.node.control_client import ControlClient
from comity.node.script import PartySection, Script
from comity.transport.certificates import Authority
from comity.transport.identity import Identity

_START_S = 120.0
_STOP_S = 15.0
_POLL_S = 0.05


@dataclass(frozen=True)
class NodeProcess:
    """A running daemon.

    Attributes:
        party: Its party.
        folder: Its configuration, state and log.
        process: The process.
    """

    party: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def control_url(self) -> str:
        """Where its operator reaches it."""
        return f"unix:{self.folder / 'state' / 'control.sock'}"

    def wait_ready(self) -> str:
        """Waits until it serves; returns the address that peers reach it at, empty for a node that only asks.

        Raises:
            NodeProcessFailed: It ended, or did not come up in time.
        """
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise NodeProcessFailed(
                    f"node {self.party} did not start", received=self.last_words(), action=f"see {self.folder / 'log'}"
                )
            if (self.folder / "state" / "control.sock").exists():
                try:
                    with ControlClient(self.control_url) as control:
                        description = control.describe()
                except PeerUnreachable:
                    pass
                else:
                    if description.pid == self.process.pid:
                        return description.address
            time.sleep(_POLL_S)
        raise NodeProcessFailed(
            f"node {self.party} did not start in time",
            expected=f"{_START_S:.0f} s",
            action=f"see {self.folder / 'log'}",
        )

    def last_words(self) -> str:
        """The last line of its log."""
        lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing in its log"

    def stop(self) -> None:
        """Asks it to stop; after a while, makes it."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_node(role: str, folder: Path, config: dict[str, Any], *, threads: int = 1) -> NodeProcess:
    """Starts a daemon as a process of its own.

    Args:
        role: Its role; the daemon is the module `<role>_node`.
        folder: Where its configuration, state and log go.
        config: Its configuration.
        threads: Threads of its tensor operations; results are the same only for equal numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "node.toml"
    path.write_text(tomli_w.dumps(config))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"{role}_node", "--config", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    return NodeProcess(config["party"], folder, process)


def node_config(name: str, section: PartySection, identity: Identity, **more: object) -> dict[str, Any]:
    """The configuration of a daemon that is this party of a script."""
    values = section.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"role", "secret"})
    if section.secret is not None:
        values["secret"] = section.secret.get_secret_value()
    files = {"certificate": identity.certificate, "key": identity.key, "trust": identity.trust}
    tls = {name: str(path) for name, path in files.items()}
    return {"party": name, "state_dir": "state", "tls": tls} | values | more


@contextmanager
def running(script: Script, workdir: Path, *, threads: int = 1) -> Iterator[dict[str, NodeProcess]]:
    """Runs a script's parties as processes, and stops them at the end.

    Args:
        script: A script with a table for each party.
        workdir: Where their configurations, certificates, states and logs go.
        threads: Threads of each node's tensor operations.

    Yields:
        The processes by party, ready; those that help listen on free ports of loopback.

    Raises:
        NodeProcessFailed: One did not start.
    """
    # A daemon counts relative paths from its configuration's folder, not from here.
    workdir = workdir.resolve()
    authority = Authority.create()
    nodes: dict[str, NodeProcess] = {}
    addresses: dict[str, str] = {}
    # Those who help come first: those who ask need their addresses.
    order = sorted(script.party, key=lambda name: name not in script.session.helpers)
    with ExitStack() as stack:
        for name in order:
            section = script.party[name]
            folder = workdir / name
            identity = authority.issue(name, folder / "tls")
            if name in script.session.helpers:
                more: dict[str, object] = {"listen": "127.0.0.1:0"}
            else:
                more = {"peers": {peer: {"address": address} for peer, address in addresses.items()}}
            node = start_node(section.role, folder, node_config(name, section, identity, **more), threads=threads)
            stack.callback(node.stop)
            nodes[name] = node
            addresses[name] = node.wait_ready()
        yield nodes
