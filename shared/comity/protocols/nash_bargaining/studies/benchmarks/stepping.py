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
_METHODS = ("auxinash", "nash-mtl", "pcgrad", "linear")
_LEARNING = "learning "


def run(*, quick: bool = False) -> Report:
    """Trains the LeNet of pairs of digits on three tasks: both digits, and their sum; one thread, processor time.

    A step is all that one is: the forward pass, three backward passes, the game, the optimiser's step, and of the main task's
    gradient on another batch, by which powers move, what falls to each of the 25 steps between. It stands beside three
    backward passes through the same model alone, whose forward pass is not counted, and beside those with it. Layers are in
    `channels_last` for all. Single steps in turn, of which the least counts: on a machine that has other work, caches are lost
    to it, to some more than to others.

    Args:
        quick: Few steps.
    """
    repeats = 3 if quick else 60
    model = LeNet(_SIDE, 10, heads=3).to(memory_format=torch.channels_last)
    draws = torch.Generator().manual_seed(0)
    inputs = torch.rand(_BATCH, 1, _SIDE, _SIDE, generator=draws).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (3, _BATCH), generator=draws)

    def losses() -> list[Tensor]:
        return [functional.cross_entropy(said, label) for said, label in zip(model(inputs), labels, strict=True)]

    trunk = [*model.trunk.parameters()]
    heads = [[*head.parameters()] for head in model.heads]

    def backward(made: list[Tensor]) -> None:
        for task, (loss, own) in enumerate(zip(made, heads, strict=True)):
            torch.autograd.grad(loss, [*trunk, *own], retain_graph=task < 2)

    def passes() -> float:
        made = losses()
        return _taken(lambda: backward(made))

    steps = {name: _weighed(name, model, losses) for name in _METHODS}
    learning = {f"{_LEARNING}{name}": learn for name, (_, learn) in steps.items() if learn is not None}
    with one_thread():
        found = interleaved(
            {
                "passes": passes,
                "forward": lambda: _taken(losses),
                "both": lambda: _taken(lambda: backward(losses())),
                **{name: step for name, (step, _) in steps.items()},
                **learning,
            },
            repeats=repeats,
            warmup=3,
            of=min,
        )
    for name in learning:
        # The powers move every so many steps.
        found[name.removeprefix(_LEARNING)] += found.pop(name) / _LEARN_EVERY
    return _report(found)


def _taken(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _weighed(
    method: str, model: LeNet, losses: Callable[[], list[Tensor]]
) -> tuple[Callable[[], float], Callable[[], float] | None]:
    """Makes a step, and has the method learn, where it does."""
    trunk = [*model.trunk.parameters()]
    heads = [[*head.parameters()] for head in model.heads]
    weigher = weighting(method, 3)
    gradients = WeightedGradients(weigher, trunk, heads, norm=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        gradients.backward(losses())
        gradients.combine()
        optimizer.step()

    def learn() -> None:
        gradients.update(torch.autograd.grad(losses()[0], trunk))

    return lambda: _taken(step), (lambda: _taken(learn)) if weigher.learns else None


def _report(found: Mapping[str, float]) -> Report:
    alone = Row("three backward passes alone", 1e3 * found["passes"], "ms")
    both = Row("the forward pass and three backward passes", 1e3 * found["both"], "ms")
    forward = Row("the forward pass", 1e3 * found["forward"], "ms").over(alone)
    steps = {name: 1e3 * found[name] for name in _METHODS}
    rows = [Row(f"a step by {name}", taken, "ms").over(alone) for name, taken in steps.items()]
    rows += [
        Row(f"a step by {name}, beside its forward pass too", taken, "ms").over(both) for name, taken in steps.items()
    ]
    what = f"a step by auxinash, three tasks, LeNet, batch {_BATCH}, over three backward passes"
    target = Target.at_most(what, _MOST_OVER_PASSES, found["auxinash"] / found["passes"])
    return Report("weighting", describe(), [alone, forward, both.over(alone), *rows], [target])
