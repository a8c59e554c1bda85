"""What the leak guard costs a training: the same steps without it, with the rules of rows and pairs, and with groups."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
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
                periods = 2 if quick else max(2, 40 // period)
                cases: dict[str, Callable[[], float]] = {
                    way: partial(_seconds, make(rules), period, periods) for way, rules in _WAYS.items()
                }
                medians = interleaved(cases, repeats=1 if quick else 7)
                alone, *guarded = (
                    Row(f"{name}, period {period}, {way}", 1e3 * value, "ms") for way, value in medians.items()
                )
                rows += [alone, *(each.over(alone) for each in guarded)]
                if name == "LeNet-5":
                    what = f"LeNet-5, period {period}: rows and pairs, over training alone"
                    targets.append(Target.at_most(what, _MOST_OVER_TRAINING, guarded[0].median / alone.median))
                else:
                    rows.append(Row(f"{name}, period {period}, a release", guarded[1].median - alone.median, "ms"))
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


def _seconds(task: Supervised, period: int, periods: int) -> float:
    """CPU time of a sampling period: its steps, and making what leaves of them; the first, which measures inputs, is left out."""
    spec = OptimizerSpec("adam", 1e-3)
    training = task.trajectory(task.initial_state, spec, iterations=period * (periods + 1) + 1, period=period, round=1)
    next(training)
    next(training)
    began = time.process_time()
    for _ in training:
        pass
    return (time.process_time() - began) / periods
