"""A checkpoint from a state dict in one process to usable tensors in another.

The product hashes, sends, verifies the digest and checks every value. It is compared with a bare socket that copies the
same bytes into a buffer that is there already, and with whole state dicts in one gRPC message, which verify nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TypeVar

from comity.bench.machine import describe
from comity.bench.memory import PeakMemory, is_measurable
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.bench.transfer.process import Peer
from comity.bench.transfer.sides import RAW, Case, Side
from comity.bench.transfer.workload import RECEIVER, SENDER, Workload
from comity.transport.certificates import Authority

Value = TypeVar("Value")

_LEAST_SHARE = {"plaintext": 0.35, "mTLS": 0.4}
"""Throughput over that of a bare socket."""
_MOST_MEMORY = 1.5
"""Growth of resident memory over the checkpoint's size."""


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
        peer = stack.enter_context(Peer(workload.contract.models["model"].name, Path(folder) / RECEIVER))
        identities = {"plaintext": None, "mTLS": own}
        sides = [Side(security, identity, peer, workload, stack) for security, identity in identities.items()]
        groups = _joined(side.groups for side in sides)
        whole_groups = _joined(side.whole_groups for side in sides)
        steps = _steps(workload)
        seconds = interleaved(_joined(groups.values()) | steps, repeats=2 if quick else 31, warmup=1 if quick else 3)
        seconds |= interleaved(_joined(whole_groups.values()), repeats=2 if quick else 7)
        memory = _memory(peer, sides[-1], workload, repeats=1 if quick else 5) if is_measurable() else {}
    rows, targets = _speeds(groups | whole_groups, seconds, workload.layout.size)
    rows += [Row(label, 1e3 * seconds[label], "ms") for label in steps]
    rows += [Row(f"peak memory over the checkpoint's size, {name}", value, "x") for name, value in memory.items()]
    for party in ("sender", "receiver") if memory else ():
        what = f"peak memory of the {party} over the checkpoint's size"
        targets.append(Target.at_most(what, _MOST_MEMORY, memory[f"comity, {party}"]))
    return Report("transfer", machine, rows, targets)


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


def _speeds(
    groups: Mapping[str, Mapping[str, Case]], seconds: Mapping[str, float], size: int
) -> tuple[list[Row], list[Target]]:
    """The speed of every case over its baseline's, and what is asked of the product's."""
    rows = [Row("checkpoint", size / 1e6, "MB")]
    for baseline_label, cases in groups.items():
        speeds = {label: Row(label, size / 1e6 / seconds[label], "MB/s") for label in cases}
        baseline = speeds.pop(baseline_label)
        rows += [baseline, *(row.over(baseline) for row in speeds.values())]
    shares = {row.label: row.ratio for row in rows}
    targets = [
        Target.at_least(
            f"{direction} over {raw}", _LEAST_SHARE[security], shares[f"{security}, comity, {direction}"] or 0
        )
        for security, raw in RAW.items()
        for direction in ("upload", "download")
    ]
    return rows, targets


def _joined(parts: Iterable[Mapping[str, Value]]) -> dict[str, Value]:
    return {key: value for part in parts for key, value in part.items()}
