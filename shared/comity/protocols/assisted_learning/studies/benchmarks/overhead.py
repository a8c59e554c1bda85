"""What the network costs a session besides training.

The same session runs as two daemons with mTLS on loopback, and with both roles in one process, each role with one thread;
in one process both in memory and, as daemons do, with everything on disk.
Rounds of next to no training, with few and with many checkpoints, tell the cost of a round and of a checkpoint; rounds of
long training tell what is left of it where sessions are real.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import linear_regression

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.node.control_client import ControlClient
from comity.node.sessions.initiator import draft_contract
from comity.protocols.assisted_learning.studies.benchmarks.rounds import Load, Seconds, Ways
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.simulation.in_process import parties
from comity.simulation.processes import running

_MOST_OVER_IN_PROCESS = 1.1
_LONG_S = 6.5
"""Training of both parties in a long round; the target speaks of five seconds and more."""
_LONG_CHECKPOINTS = 40
_PROBED = 50
"""Iterations that are timed to find how many make a long round."""


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark.

    Args:
        quick: Two rounds of each kind, the long ones of a fraction of a second.
    """
    machine = describe()
    sizes = (4, 16) if quick else (4, 16, 64)
    short = {f"{size} checkpoints": Load(size, period=1, rounds=2 if quick else 10, hidden=8) for size in sizes}
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as folder, one_thread():
        long, training_s = _long(_LONG_S / 100 if quick else _LONG_S)
        script = long.script("bench")
        with running(script, Path(folder)) as nodes, ControlClient(nodes["learner"].control_url) as control:
            ways = Ways(control, Path(folder) / "in-process")
            measured = ways.compare(short, repeats=1 if quick else 5)
            measured |= ways.compare({"long": long}, repeats=1 if quick else 4)
    return _report(machine, short, measured, training_s)


def _long(seconds: float) -> tuple[Load, float]:
    """A round in which both parties together train for so many seconds here, and how long they do."""
    probe = Load(2 * _PROBED, period=_PROBED, rounds=1, hidden=512)
    script = probe.script("probe")
    (learner,), _ = parties(script)
    contract, _ = draft_contract(script, learner, "probe")
    terms = AssistedLearningTerms.model_validate(contract.terms.model_dump())
    task = learner.task(contract)

    def train() -> float:
        began = time.perf_counter()
        for _ in task.trajectory(
            task.initial_state, terms.optimizer_spec(1), iterations=_PROBED + 1, period=_PROBED, round=1
        ):
            pass
        return (time.perf_counter() - began) / _PROBED

    iteration_s = interleaved({"iteration": train}, repeats=3)["iteration"]
    # Nothing is trained after the last checkpoint, at either party.
    period = max(1, round(seconds / iteration_s / (_LONG_CHECKPOINTS - 2)))
    load = Load(period * _LONG_CHECKPOINTS, period, rounds=probe.rounds, hidden=probe.hidden)
    return load, load.crossing * period * iteration_s


def _report(machine: dict[str, str], short: dict[str, Load], measured: dict[str, Seconds], training_s: float) -> Report:
    rows: list[Row] = []
    for name in short:
        rows += _rows(f"round of {name}", measured[name], 1e3, "ms")
    counts = [load.crossing for load in short.values()]
    extra = [1e3 * (measured[name].network - measured[name].disk) for name in short]
    slope, intercept = linear_regression(counts, extra)
    long = _rows("long round", measured["long"], 1, "s")
    rows += [
        Row("the network's cost of a round", intercept, "ms"),
        Row("the network's cost of a checkpoint that crosses", slope, "ms"),
        Row("long round, training alone", training_s, "s"),
        *long,
    ]
    what = "a long round over the network, over the same in one process in memory"
    return Report("overhead", machine, rows, [Target.at_most(what, _MOST_OVER_IN_PROCESS, long[-1].ratio or 0.0)])


def _rows(what: str, seconds: Seconds, scale: float, unit: str) -> list[Row]:
    """A round in all three ways, each over the one in memory."""
    baseline = Row(f"{what}, in one process", scale * seconds.memory, unit)
    disk = Row(f"{what}, in one process, on disk", scale * seconds.disk, unit)
    return [
        baseline,
        disk.over(baseline),
        Row(f"{what}, over the network", scale * seconds.network, unit).over(baseline),
    ]
