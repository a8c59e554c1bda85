"""What the leak guard costs a training: the same steps without it, with the rules of rows and pairs, and with groups."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import one_thread
from comity.data import DataConfig, Dataset, Splits, load_data
from comity.models import build
from comity.privacy.leak_guard import Rules
from comity.training import OptimizerSpec, Secret, Supervised

_MOST_OVER_TRAINING = 1.10
_SAMPLES = 20_000
"""Distinct images, of MNIST's shape: more than the batches of a period hold."""
_WAYS: dict[str, Rules | None] = {
    "training alone": None,
    "with rows and pairs": Rules(neighbours=0),
    "with groups of 8 too": Rules(),
}


def run(*, quick: bool = False) -> Report:
    """Trains LeNet-5 on random images of MNIST's shape, and a small network on digits, a sampling period after another.

    Args:
        quick: Few periods, once.
    """
    rows: list[Row] = []
    targets: list[Target] = []
    images, digits = _images(), load_data(DataConfig(source="digits"))
    networks: dict[str, Callable[[Rules | None], Supervised]] = {
        "LeNet-5": partial(_task, "lenet5", {}, images),
        "MLP 64 on digits": partial(_task, "mlp", {"hidden": 64}, digits),
    }
    with one_thread():
        for name, make in networks.items():
            for period in (5, 20):
                tasks = {way: make(rules) for way, rules in _WAYS.items()}
                times = _periods(tasks, period, 2 if quick else 60 // period, repeats=1 if quick else 4)
                alone, *guarded = (
                    Row(f"{name}, period {period}, {way}", 1e3 * median(each), "ms") for way, each in times.items()
                )
                ratios = [_ratio(times[way], times["training alone"]) for way in list(_WAYS)[1:]]
                rows += [
                    alone,
                    *(
                        replace(row, ratio=ratio, baseline=alone.label)
                        for row, ratio in zip(guarded, ratios, strict=True)
                    ),
                ]
                if name == "LeNet-5":
                    what = f"LeNet-5, period {period}: rows and pairs, over training alone"
                    targets.append(Target.at_most(what, _MOST_OVER_TRAINING, ratios[0]))
                else:
                    more = (ratios[1] - 1) * alone.median
                    rows.append(Row(f"{name}, period {period}, a release", more, "ms"))
    return Report("guard", describe(), rows, targets)


def _images() -> Splits:
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (_SAMPLES, 1, 28, 28), generator=draws, dtype=torch.uint8)
    labels = torch.randint(10, (_SAMPLES,), generator=draws)
    return Splits(Dataset(inputs, labels, 1 / 255, 10), None)


def _task(model: str, options: dict[str, int], splits: Splits, rules: Rules | None) -> Supervised:
    shape = splits.train.input_shape
    return Supervised(
        build(model, input_shape=shape, outputs=10, options=dict(options), seed=0),
        splits,
        normalization=((), ()),
        batch_size=256,
        evaluation_batch_size=256,
        secret=Secret(b"guard", "bench"),
        device=torch.device("cpu"),
        rules=rules,
    )


def _periods(tasks: Mapping[str, Supervised], period: int, periods: int, *, repeats: int) -> dict[str, list[float]]:
    """CPU times of sampling periods: their steps, and making what leaves of them.

    All ways make the same period, one after the other, so that what else the machine does falls on all alike. The first
    period, in which inputs are measured, is left out.
    """
    spec = OptimizerSpec("adam", 1e-3)
    times: dict[str, list[float]] = {way: [] for way in tasks}
    for _ in range(repeats):
        trainings = {
            way: task.trajectory(
                task.initial_state, spec, iterations=period * (periods + 1) + 1, period=period, round=1
            )
            for way, task in tasks.items()
        }
        for made in zip(*trainings.values(), strict=True):
            if made[0].iteration == period:
                break
        for _ in range(periods):
            for way, training in trainings.items():
                began = time.process_time()
                next(training)
                times[way].append(time.process_time() - began)
    return times


def _ratio(times: Sequence[float], alone: Sequence[float]) -> float:
    """The median over periods of how much longer one took."""
    return median(one / other for one, other in zip(times, alone, strict=True))
