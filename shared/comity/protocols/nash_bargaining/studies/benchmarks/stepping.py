"""A training step whose gradients are weighed, against the backward passes that it cannot do without."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.protocols.nash_bargaining.studies.pareto import LeNet
from comity.training.weighting import WeightedGradients, weighting

_BATCH = 256
_SIDE = 36
_MOST_OVER_PASSES = 1.25
_LEARN_EVERY = 25


def run(*, quick: bool = False) -> Report:
    """Trains the LeNet of pairs of digits on three tasks: both digits, and their sum.

    Args:
        quick: Few steps, once.
    """
    steps, repeats = (2, 1) if quick else (10, 7)
    model = LeNet(_SIDE, 10, heads=3)
    draws = torch.Generator().manual_seed(0)
    inputs = torch.rand(_BATCH, 1, _SIDE, _SIDE, generator=draws)
    labels = torch.randint(10, (3, _BATCH), generator=draws)

    def losses() -> list[Tensor]:
        return [functional.cross_entropy(said, label) for said, label in zip(model(inputs), labels, strict=True)]

    trunk = [*model.trunk.parameters()]
    heads = [[*head.parameters()] for head in model.heads]

    def passes() -> float:
        seconds = 0.0
        for _ in range(steps):
            made = losses()
            began = time.perf_counter()
            for task, (loss, own) in enumerate(zip(made, heads, strict=True)):
                torch.autograd.grad(loss, [*trunk, *own], retain_graph=task < 2)
            seconds += time.perf_counter() - began
        return seconds / steps

    def forward() -> float:
        began = time.perf_counter()
        for _ in range(steps):
            losses()
        return (time.perf_counter() - began) / steps

    with one_thread():
        found = interleaved(
            {
                "passes": passes,
                "forward": forward,
                **{name: _weighed(name, model, losses, steps) for name in ("auxinash", "nash-mtl", "pcgrad", "linear")},
            },
            repeats=repeats,
        )
    return _report(found)


def _weighed(method: str, model: LeNet, losses: Callable[[], list[Tensor]], steps: int) -> Callable[[], float]:
    trunk = [*model.trunk.parameters()]
    heads = [[*head.parameters()] for head in model.heads]
    gradients = WeightedGradients(weighting(method, 3), trunk, heads, norm=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            gradients.backward(losses())
            gradients.combine()
            optimizer.step()
        if method == "auxinash":
            learned = time.perf_counter()
            gradients.update(torch.autograd.grad(losses()[0], trunk))
            # The powers move every so many steps.
            began += (time.perf_counter() - learned) * (1 - steps / _LEARN_EVERY)
        return (time.perf_counter() - began) / steps

    return measure


def _report(found: Mapping[str, float]) -> Report:
    alone = Row("three backward passes alone", 1e3 * found["passes"], "ms")
    labels = {name: f"a step by {name}" for name in found if name != "passes"} | {"forward": "the forward pass"}
    rows = [Row(label, 1e3 * found[name], "ms").over(alone) for name, label in labels.items()]
    what = f"a step by auxinash, three tasks, LeNet, batch {_BATCH}, over three backward passes"
    target = Target.at_most(what, _MOST_OVER_PASSES, found["auxinash"] / found["passes"])
    return Report("weighting", describe(), [alone, *rows], [target])
