"""The solver against cvxpy and TorchJD's NashMTL, and batches of problems against a loop.

cvxpy, ECOS and TorchJD's extra are no part of this project. They are measured where they can be imported, for example with
`uv run --with cvxpy --with ecos --with clarabel comity bench bargaining`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.protocols.nash_bargaining import bargain
from comity.protocols.nash_bargaining.studies.benchmarks.problems import Problem, problems

_BATCH = 1000
_LASTING = 0.01
"""Processor seconds that a measurement takes at least."""
_WRONG = 0.01
"""A residual of α·Kα = p above which a solution is called wrong."""


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark.

    Args:
        quick: Two sizes, a batch of 50, one measurement.
    """
    cases, repeats = problems((2, 3) if quick else (2, 3, 5, 10, 20)), 1 if quick else 5
    rows: list[Row] = []
    targets: list[Target] = []
    with one_thread(), warnings.catch_warnings():
        # ECOS and cvxpy warn of much.
        warnings.simplefilter("ignore")
        for measure in (_solvers, _batches):
            more_rows, more_targets = measure(cases, repeats, 50 if quick else _BATCH)
            rows += more_rows
            targets += more_targets
    return Report("bargaining", describe(), rows, targets)


def _solvers(cases: list[Problem], repeats: int, batch: int) -> tuple[list[Row], list[Target]]:
    del batch
    ways: dict[str, Callable[[Problem], Any]] = {"ours": lambda each: bargain(each.gram, each.power).alpha}
    if find_spec("cvxpy") is not None:
        ways["cvxpy"] = _by_cvxpy
        if find_spec("torchjd") is not None and find_spec("ecos") is not None:
            ways["torchjd"] = _by_torchjd
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    wrong = dict.fromkeys(ways, 0)
    for each in cases:
        measured = interleaved({name: _timed(partial(way, each)) for name, way in ways.items()}, repeats=repeats)
        for name, way in ways.items():
            seconds[name].append(measured[name])
            # TorchJD's are for equal powers.
            power = each.power if name != "torchjd" else torch.full_like(each.power, 1.0)
            wrong[name] += not _residual(each, way(each), power) <= _WRONG
    label = {
        "ours": "bargain",
        "cvxpy": "the same problem through cvxpy (CLARABEL)",
        "torchjd": "TorchJD's NashMTL, for equal powers",
    }
    own = Row(f"{label['ours']}, a game", 1e6 * median(seconds["ours"]), "µs")
    rows = [own]
    targets: list[Target] = []
    for name in ways:
        if name != "ours":
            rows.append(Row(f"{label[name]}, a game", 1e6 * median(seconds[name]), "µs").over(own))
            ratio = median(theirs / ours for theirs, ours in zip(seconds[name], seconds["ours"], strict=True))
            targets.append(Target.at_least(f"{label[name]}, over bargain, median of {len(cases)} games", 100, ratio))
        rows.append(Row(f"{label[name]}: of {len(cases)} games, wrong by more than 1 %", wrong[name], "games"))
    return rows, targets


def _batches(cases: list[Problem], repeats: int, batch: int) -> tuple[list[Row], list[Target]]:
    del cases
    draws = torch.Generator().manual_seed(0)
    gradients = torch.randn(batch, 3, 16, dtype=torch.float64, generator=draws)
    grams, power = gradients @ gradients.mT, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

    def loop() -> None:
        for gram in grams:
            bargain(gram, power)

    ways = {"loop": loop, "together": lambda: bargain(grams, power)}
    # The least: a batch that other work has driven from the caches says little of either.
    found = interleaved({name: _timed(way) for name, way in ways.items()}, repeats=4 * repeats, of=min)
    one = Row(f"{batch} games of three, together", 1e3 * found["together"], "ms")
    return (
        [one, Row(f"{batch} games of three, one by one", 1e3 * found["loop"], "ms").over(one)],
        [Target.at_least(f"{batch} games one by one, over together", 20, found["loop"] / found["together"])],
    )


def _timed(way: Callable[[], object]) -> Callable[[], float]:
    """Processor seconds of a call, of as many as last for a while: a single one measures what ran before it."""

    def measure() -> float:
        calls, began = 0, time.process_time()
        while (seconds := time.process_time() - began) < _LASTING:
            way()
            calls += 1
        return seconds / calls

    return measure


def _residual(each: Problem, alpha: Any, power: torch.Tensor) -> float:
    if alpha is None:
        return float("inf")
    found = torch.as_tensor(alpha, dtype=torch.float64)
    products = found * (each.gram @ found)
    # Up to the update's length, which TorchJD leaves to its `max_norm`.
    return float((products * (power.sum() / products.sum()) / power - 1).abs().max())


def _by_cvxpy(each: Problem) -> Any:
    cp = import_module("cvxpy")
    x = cp.Variable(len(each.power))
    value = 0.5 * cp.quad_form(x, cp.psd_wrap(each.gram.numpy())) - each.power.numpy() @ cp.log(x)
    try:
        cp.Problem(cp.Minimize(value)).solve(solver=cp.CLARABEL)
    except (cp.SolverError, ValueError):
        return None
    return x.value


def _by_torchjd(each: Problem) -> Any:
    aggregation = import_module("torchjd.aggregation")
    root = torch.linalg.cholesky(each.gram + 1e-14 * torch.diag(each.gram.diagonal()))
    weighting = aggregation.NashMTL(len(each.power), max_norm=0.0).weighting
    return weighting(root).double()
