"""A checkpoint from a state dict in one process to usable tensors in another.

The product hashes, sends, verifies the digest and checks every value. It is compared with a bare socket that copies the
same bytes into a buffer that is there already, and with whole state dicts in one gRPC message, which verify nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from comity.bench.machine import describe
from comity.bench.memory import PeakMemory, is_measurable
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.bench.transfer import plain, sockets
from comity.bench.transfer.link import Courier
from comity.bench.transfer.process import Peer
from comity.bench.transfer.workload import RECEIVER, SENDER, Workload
from comity.transport.certificates import Authority
from comity.transport.identity import Identity
from comity.transport.link import Link, Patience

_LEAST_SHARE = {"plaintext": 0.35, "mTLS": 0.4}
"""Throughput over that of a bare socket."""
_MOST_MEMORY = 1.5
"""Growth of resident memory over the checkpoint's size."""
_RAW = {"plaintext": "raw TCP", "mTLS": "raw TLS"}


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark.

    Args:
        quick: A tiny model, twice.
    """
    machine = describe()
    workload = Workload.of("mlp" if quick else "resnet18-cifar")
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as folder, one_thread(), ExitStack() as stack:
        authority = Authority.create()
        own = authority.issue(SENDER, Path(folder) / SENDER)
        authority.issue(RECEIVER, Path(folder) / RECEIVER)
        peer = stack.enter_context(Peer(workload.contract.model.name, Path(folder) / RECEIVER))
        sides = {
            "plaintext": Side("plaintext", None, peer, workload, stack),
            "mTLS": Side("mTLS", own, peer, workload, stack),
        }
        cases = {label: case for side in sides.values() for label, case in side.cases.items()}
        seconds = interleaved(cases | _steps(workload), repeats=2 if quick else 21, warmup=1 if quick else 3)
        memory = _memory(peer, sides["mTLS"], workload, repeats=1 if quick else 5) if is_measurable() else {}
    return _report(machine, workload.layout.size, seconds, memory)


class Side:
    """Everything that is measured in plaintext, or under mTLS.

    Args:
        security: `plaintext` or `mTLS`.
        identity: This process's certificate; None for plaintext.
        peer: The other process.
        workload: What is moved.
        stack: Where connections are closed.
    """

    def __init__(
        self, security: str, identity: Identity | None, peer: Peer, workload: Workload, stack: ExitStack
    ) -> None:
        ports = peer.ports[security]
        address = f"127.0.0.1:{ports['comity']}"
        link = stack.enter_context(Link(identity or Identity(SENDER), RECEIVER, address, Patience()))
        link.enter(workload.contract.session, workload.contract.hash)
        channel = stack.enter_context(plain.channel(identity, RECEIVER, ports["plain"]))
        context = None if identity is None else sockets.client_context(identity)
        raw = stack.enter_context(sockets.RawCopy(ports["raw"], workload.layout.size, context, RECEIVER))
        courier = Courier(link, peer, workload)
        packed = courier.pack()
        self.senders: dict[str, Callable[[], float]] = {"comity": courier.upload} | {
            f"whole message, {format}": partial(plain.upload_whole, channel, workload.state, format)
            for format in plain.FORMATS
        }
        self.cases: dict[str, Callable[[], float]] = {
            f"{_RAW[security]}, upload": raw.upload,
            **{f"{security}, {name}, upload": case for name, case in self.senders.items()},
            f"{security}, chunks alone, dropped, upload": partial(plain.upload_chunks, channel, packed.data),
            f"{_RAW[security]}, download": raw.download,
            f"{security}, comity, download": courier.download,
        }


def _steps(workload: Workload) -> dict[str, Callable[[], float]]:
    """The parts of a transfer in which nothing travels."""
    layout = workload.layout
    blob = layout.pack(workload.state)
    return {
        "pack and hash, before the first byte": _timed(lambda: layout.pack(workload.state)),
        "verify, after the last": _timed(lambda: layout.verify(blob)),
    }


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def measure() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return measure


def _memory(peer: Peer, side: Side, workload: Workload, *, repeats: int) -> dict[str, float]:
    """Growth of resident memory in an upload, over the checkpoint's size, by way and by process."""
    growths: dict[str, list[int]] = {}
    for _ in range(repeats):
        for name, send in side.senders.items():
            peer.ask("mark")
            own = PeakMemory()
            send()
            growths.setdefault(f"{name}, sender", []).append(own.growth())
            growths.setdefault(f"{name}, receiver", []).append(peer.ask("peak")["growth"])
    return {name: median(values) / workload.layout.size for name, values in growths.items()}


def _report(machine: dict[str, str], size: int, seconds: dict[str, float], memory: dict[str, float]) -> Report:
    rows = [Row("checkpoint", size / 1e6, "MB")]
    speeds = {label: Row(label, size / 1e6 / value, "MB/s") for label, value in seconds.items() if "load" in label}
    targets: list[Target] = []
    for security, raw in _RAW.items():
        for direction in ("upload", "download"):
            baseline = speeds[f"{raw}, {direction}"]
            rows.append(baseline)
            for label, row in speeds.items():
                if label.startswith(security) and label.endswith(f", {direction}"):
                    rows.append(row.over(baseline))
            share = speeds[f"{security}, comity, {direction}"].over(baseline).ratio or 0.0
            targets.append(Target.at_least(f"{direction} over {raw}", _LEAST_SHARE[security], share))
    rows += [Row(label, 1e3 * value, "ms") for label, value in seconds.items() if label not in speeds]
    rows += [Row(f"peak memory over the checkpoint's size, {name}", value, "x") for name, value in memory.items()]
    for party in ("sender", "receiver"):
        if memory:
            what = f"peak memory of the {party} over the checkpoint's size"
            targets.append(Target.at_most(what, _MOST_MEMORY, memory[f"comity, {party}"]))
    return Report("transfer", machine, rows, targets)
