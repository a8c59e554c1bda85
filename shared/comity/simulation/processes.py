"""A script's parties as processes of one machine: real daemons, real sockets, certificates made for the occasion.

Importing torch and what hangs on it takes a processor several seconds. Here it is done once, in a process from which each
daemon is forked; an operator starts the same daemon with `comity node` or `python -m <role>_node`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import tomlkit
import torch

from comity.errors import NodeProcessFailed, PeerUnreachable
from comity.node.control_client import ControlClient
from comity.node.sessions.script import PartySection, Script
from comity.simulation.forking import context
from comity.transport.addresses import socket_url
from comity.transport.certificates import Authority
from comity.transport.identity import Identity

_START_S = 120.0
_STOP_S = 15.0
_POLL_S = 0.05


class NodeProcess:
    """A daemon as a process of its own, which can be started again after it died.

    Args:
        role: Its role; the daemon is the module `<role>_node`, or `comity.node` for roles without one.
        folder: Where its configuration, state and log go.
        config: Its configuration.
        threads: Threads of its tensor operations, on which the last digits depend; None leaves it to torch.
    """

    def __init__(self, role: str, folder: Path, config: dict[str, Any], *, threads: int | None = 1) -> None:
        self.party: str = config["party"]
        self.folder = folder
        self._role = role
        self._listens = "listen" in config
        self._threads = threads
        self._process: ForkServerProcess | None = None
        # Only one may read how a process ended.
        self._asking = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "node.toml").write_text(tomlkit.dumps(config))

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Starts the process.

        Args:
            environment: Variables over those of this process.
        """
        threads = {} if self._threads is None else {"OMP_NUM_THREADS": str(self._threads)}
        variables = os.environ | threads | dict(environment or {})
        config = str(self.folder / "node.toml")
        # Daemonic in the sense of multiprocessing: it ends with whoever started it.
        self._process = context().Process(
            target=_serve, args=(self._role, config, str(self.folder / "log"), variables), name=self.party, daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Number of the process that was started last."""
        return self._started().pid or 0

    def exit_code(self, timeout_s: float | None = 0.0) -> int | None:
        """How the process ended, a signal as a negative number; None while it runs.

        Args:
            timeout_s: How long to wait for its end; None for as long as it takes.
        """
        process = self._started()
        connection.wait([process.sentinel], timeout_s)
        with self._asking:
            return process.exitcode

    def kill(self) -> int | None:
        """Ends it with SIGKILL, if it runs; returns how it ended."""
        self._started().kill()
        return self.exit_code(None)

    def _started(self) -> ForkServerProcess:
        if self._process is None:
            raise RuntimeError(f"{self.party} was never started")
        return self._process

    @property
    def control_url(self) -> str:
        """Where its operator reaches it."""
        return socket_url(self.folder / "state" / "control.sock")

    def wait_ready(self) -> str:
        """Waits until it serves; returns the address that peers reach it at, empty for a node that only asks.

        Raises:
            NodeProcessFailed: It ended, or did not come up in time.
        """
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self.exit_code() is not None:
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
                    # The operator's service is there first.
                    if description.pid == self.pid and (description.address or not self._listens):
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
        """Asks it to stop; after a while, makes it. One that was never started is left as it is."""
        if self._process is None or self._process.pid is None:
            return
        self._process.terminate()
        if self.exit_code(_STOP_S) is None:
            self.kill()


def _serve(role: str, config: str, log: str, variables: Mapping[str, str]) -> None:
    """Becomes the daemon that `python -m <role>_node --config …` is, or `python -m comity.node ROLE --config …`.

    It ends when whoever started it has ended.
    """
    os.setsid()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    with open(log, "ab") as file:  # noqa: PTH123 - a descriptor is all that is wanted of it
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(variables)
    if threads := variables.get("OMP_NUM_THREADS"):
        # The variable itself was read before the fork.
        torch.set_num_threads(int(threads))
    if folders := variables.get("PYTHONPATH"):
        # Likewise.
        sys.path[:0] = folders.split(os.pathsep)
    own = find_spec(f"{role}_node") is not None
    sys.argv = [f"{role}_node", "--config", config] if own else ["comity.node", role, "--config", config]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    """Stops this process once whoever started it has ended, who may have been killed and could tell nobody."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def start_node(role: str, folder: Path, config: dict[str, Any]) -> NodeProcess:
    """Starts a daemon; see `NodeProcess`."""
    node = NodeProcess(role, folder, config)
    node.start()
    return node


def node_config(name: str, section: PartySection, identity: Identity, **more: object) -> dict[str, Any]:
    """The configuration of a daemon that is this party of a script."""
    values = section.model_dump(mode="json", exclude_none=True, exclude_unset=True, exclude={"role", "secret"})
    # A node without one would guard what a simulation does not.
    values["privacy"] = section.privacy.model_dump(mode="json")
    # And compare.
    values["compare"] = section.compare.model_dump(mode="json")
    if section.secret is not None:
        values["secret"] = section.secret.get_secret_value()
    files = {"certificate": identity.certificate, "key": identity.key, "trust": identity.trust}
    tls = {name: str(path) for name, path in files.items()}
    return {"party": name, "state_dir": "state", "tls": tls} | values | more


@contextmanager
def running(
    script: Script,
    workdir: Path,
    *,
    threads: int | None = 1,
    environments: Mapping[str, Mapping[str, str]] | None = None,
    authority: Authority | None = None,
) -> Iterator[dict[str, NodeProcess]]:
    """Runs a script's parties as processes, and stops them at the end.

    Args:
        script: A script with a table for each party.
        workdir: Where their configurations, certificates, states and logs go.
        threads: Threads of each node's tensor operations; None leaves it to torch.
        environments: Variables over those of this process, by party.
        authority: Who certifies them; one of their own if nothing is said.

    Yields:
        The processes by party, ready.

    Raises:
        NodeProcessFailed: One did not start.
    """
    with ExitStack() as stack:
        nodes = prepare(script, workdir, threads=threads, authority=authority)
        for name, node in nodes.items():
            # Before it starts: whoever interrupts us in between leaves no daemon behind.
            stack.callback(node.stop)
            node.start((environments or {}).get(name))
        for node in nodes.values():
            node.wait_ready()
        yield nodes


def prepare(
    script: Script, workdir: Path, *, threads: int | None = 1, authority: Authority | None = None
) -> dict[str, NodeProcess]:
    """Configurations and certificates for a script's parties, on addresses of loopback that are free now.

    Returns:
        The nodes by party, those that help first; none is started.
    """
    # A daemon counts relative paths from its configuration's folder, not from here.
    workdir = workdir.resolve()
    authority = authority or Authority.create()
    acceptors = {name: f"127.0.0.1:{_free_port()}" for name in script.session.acceptors}
    nodes = {}
    for name in sorted(script.party, key=lambda name: name not in acceptors):
        section = script.party[name]
        identity = authority.issue(name, workdir / name / "tls")
        more: dict[str, object] = {"peers": {peer: {"address": address} for peer, address in acceptors.items()}}
        if name in acceptors:
            more = {"listen": acceptors[name]}
        config = node_config(name, section, identity, **more)
        nodes[name] = NodeProcess(section.role, workdir / name, config, threads=threads)
    return nodes


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
