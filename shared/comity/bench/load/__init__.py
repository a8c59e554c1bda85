"""A server under load: sessions at once, clients that watch it, and what it costs everybody else.

One daemon, its clients in processes of their own, mutual TLS. Whoever watches follows the health service, which every trusted
party may; each has a connection of its own. An operator asks for the node's sessions all the while.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from comity.bench.load.clients import Initiators, Watchers
from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.node.control_client import ControlClient
from comity.node.sessions.script import Script
from comity.simulation.processes import NodeProcess, node_config
from comity.transport.certificates import Authority
from comity.transport.identity import Identity

_WATCHED_OVER_NOT, _AT_ONCE_OVER_IN_TURN, _FLAT, _SLOWEST = 2.0, 0.9, 1.1, 3.0
_CALLS_PER_S = 50


@dataclass(frozen=True)
class Load:
    """How much is asked of the server.

    Attributes:
        watchers: Clients that watch it.
        sessions: Sessions, one after the other and all at once.
        repeats: How often each is measured, in turn.
        calls_s: How long control calls are made for one measurement, in seconds.
    """

    watchers: int
    sessions: int
    repeats: int
    calls_s: float


FULL, QUICK = Load(1000, 50, 3, 10.0), Load(20, 4, 1, 1.0)


@dataclass
class _Found:
    """What was measured, by name."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def row(self, name: str, unit: str) -> Row:
        return Row(name, median(self.values[name]), unit)


def measure(script: Script, load: Load) -> Report:
    """Puts a server under load.

    Args:
        script: A small session with a table for its initiator and its acceptor; it is run again and again.
        load: How much.
    """
    machine, found = describe(), _Found()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comity-load-")))
        server = stack.enter_context(_server(script, folder, load))
        watchers = Watchers(server.watcher, script.session.acceptors[0], server.address, load.watchers)
        initiators = Initiators(script, server.initiators, server.address)
        stack.callback(watchers.close)
        stack.enter_context(initiators)
        # What is read and compiled once is not measured.
        initiators.run(min(4, load.sessions), at_once=True)
        server.calls(load.calls_s / 4)
        for _ in range(load.repeats):
            _add_calls(found, "without watchers", server.calls(load.calls_s))
            found.add("opening the watchers", watchers.open())
            _add_calls(found, "with watchers", server.calls(load.calls_s))
            watchers.close()
        watchers.open()
        for _ in range(load.repeats):
            _sessions(found, server, initiators, load)
        process = server.process
        told = watchers.told_by(process.stop)
        found.add("watchers told that it stops", told)
    return _report(machine, found, load)


def _add_calls(found: _Found, when: str, seconds: Sequence[float]) -> None:
    found.add(f"control call, median, {when}", 1e3 * median(seconds))
    found.add(f"control call, p99, {when}", 1e3 * quantiles(seconds, n=100)[-1])


def _sessions(found: _Found, server: _Server, initiators: Initiators, load: Load) -> None:
    """Sessions in turn, and at once, the operator asking beside both; what the server takes after each lot."""
    with server.calling(on_time=False):
        began = time.perf_counter()
        initiators.run(load.sessions, at_once=False)
        in_turn = time.perf_counter() - began
    with server.calling(on_time=False) as calls:
        began = time.perf_counter()
        each = initiators.run(load.sessions, at_once=True)
        at_once = time.perf_counter() - began
    found.add("sessions a second, in turn", load.sessions / in_turn)
    found.add("sessions a second, at once", load.sessions / at_once)
    found.add("slowest of the sessions at once, over their median", max(each) / median(each))
    _add_calls(found, "during sessions at once", calls)
    for name, value in server.takes().items():
        found.add(name, value)


def _report(machine: Mapping[str, str], found: _Found, load: Load) -> Report:
    without = found.row("control call, p99, without watchers", "ms")
    watched = found.row("control call, p99, with watchers", "ms").over(without)
    in_turn = found.row("sessions a second, in turn", "/s")
    at_once = found.row("sessions a second, at once", "/s").over(in_turn)
    names = ("memory", "threads", "open files")
    grown = {name: found.values[name][-1] / found.values[name][0] for name in names}
    starved = max(found.values["slowest of the sessions at once, over their median"])
    told = found.values["watchers told that it stops"][0]
    rows = [
        found.row("control call, median, without watchers", "ms"),
        without,
        found.row("control call, median, with watchers", "ms"),
        watched,
        found.row("control call, median, during sessions at once", "ms"),
        found.row("control call, p99, during sessions at once", "ms"),
        found.row("opening the watchers", "s"),
        Row("watchers", load.watchers, ""),
        in_turn,
        at_once,
        Row("slowest of the sessions at once, over their median", starved, "x"),
        *(
            Row(f"{name} after the last sessions", found.values[name][-1], unit)
            for name, unit in zip(names, ("MB", "", ""), strict=True)
        ),
        Row("watchers told that it stops", told, ""),
    ]
    targets = [
        Target.at_most("p99 of a control call with watchers, over without", _WATCHED_OVER_NOT, watched.ratio or 0.0),
        Target.at_least("sessions at once, over in turn", _AT_ONCE_OVER_IN_TURN, at_once.ratio or 0.0),
        Target.at_most("slowest session at once, over the median", _SLOWEST, starved),
        *(Target.at_most(f"{name} after the last sessions, over the first", _FLAT, grown[name]) for name in names),
        Target.at_least("watchers told that it stops, of all", 1.0, told / load.watchers),
    ]
    return Report("load", machine, rows, targets)


class _Server:
    """The daemon under load, and an operator that asks it for its sessions.

    Args:
        process: The daemon.
        address: Where it listens.
        initiators: Who has sessions with it.
        watcher: Who watches it.
    """

    def __init__(self, process: NodeProcess, address: str, initiators: Sequence[Identity], watcher: Identity) -> None:
        self.process = process
        self.address = address
        self.initiators = initiators
        self.watcher = watcher

    def calls(self, seconds: float) -> list[float]:
        """How long control calls take, made at a steady rate, in seconds each."""
        with self.calling() as taken:
            time.sleep(seconds)
        return taken

    @contextmanager
    def calling(self, *, on_time: bool = True) -> Iterator[list[float]]:
        """Makes control calls while the body lasts.

        Args:
            on_time: Whether each is counted from when it is due, however long those before it take; else from when it is made.
        """
        taken: list[float] = []
        over = threading.Event()
        with ControlClient(self.process.control_url) as control:
            control.sessions()

            def call() -> None:
                due = time.perf_counter()
                while not over.is_set():
                    due = due if on_time else time.perf_counter()
                    control.sessions()
                    taken.append(time.perf_counter() - due)
                    due += 1 / _CALLS_PER_S
                    over.wait(max(0.0, due - time.perf_counter()))

            thread = threading.Thread(target=call, name="control-calls", daemon=True)
            thread.start()
            try:
                yield taken
            finally:
                over.set()
                thread.join()

    def takes(self) -> dict[str, float]:
        """Memory in megabytes, threads and open files of the daemon."""
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text("utf-8").splitlines()
        )
        return {
            "memory": int(fields["VmRSS"].split()[0]) / 1e3,
            "threads": int(fields["Threads"]),
            "open files": len(list(Path(f"/proc/{self.process.pid}/fd").iterdir())),
        }


@contextmanager
def _server(script: Script, folder: Path, load: Load) -> Iterator[_Server]:
    """A script's acceptor as a daemon that lets as many come as the load has."""
    authority = Authority.create()
    (acceptor,) = script.session.acceptors
    (initiator,) = script.party.keys() - {acceptor}
    most = 100 * load.sessions
    section = script.party[acceptor]
    policy = section.policy.model_copy(
        update={"max_sessions": most, "max_sessions_a_party": most, "max_new_sessions": most}
    )
    section = section.model_copy(update={"policy": policy})
    limits: dict[str, Any] = {"streams_a_party": load.watchers + 8}
    identity = authority.issue(acceptor, folder / acceptor / "tls")
    config = node_config(acceptor, section, identity, listen="127.0.0.1:0", limits=limits)
    config["policy"] = policy.model_dump(mode="json", exclude_none=True)
    process = NodeProcess(section.role, folder / acceptor, config)
    process.start()
    try:
        names = [f"{initiator}-{number}" for number in range(load.sessions)]
        initiators = [authority.issue(name, folder / name / "tls") for name in names]
        watcher = authority.issue("watcher", folder / "watcher" / "tls")
        yield _Server(process, process.wait_ready(), initiators, watcher)
    finally:
        process.stop()
