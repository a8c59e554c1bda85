"""Figure 1 and theorem 1 of Chen et al. 2023 (sections 4.1 and 2.3): AssistDeep on a quadratic, with full gradients."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from comity.experiments.charts import legend_under, panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics
from comity.protocols.assisted_learning.algorithm import argmin
from comity.training import OptimizerSpec, Quadratic, Supervised
from comity.training.quadratic import LEARNER_POINT, PROVIDER_POINT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ORACLE = tuple((ours + theirs) / 2 for ours, theirs in zip(LEARNER_POINT, PROVIDER_POINT, strict=True))
_SMOOTHNESS = 2.0
"""L of f(θ; D(L,P)), half the squared distances to two points."""


@dataclass(frozen=True)
class Regression:
    """The regression example.

    Attributes:
        rounds: R.
        iterations: T, of each party.
        learning_rate: η of the first round.
        decay: What η is multiplied with from round to round.
        start: θ^0; the paper names none.
    """

    rounds: int = 10
    iterations: int = 10
    learning_rate: float = 0.9
    decay: float = 0.9
    start: tuple[float, float] = (-2.0, 1.0)

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return ("the paper's two points",)


def regress(settings: Regression, context: ExperimentContext) -> Metrics:
    """AssistDeep with exact gradients, by the parties' local tasks.

    Returns:
        By round, from θ^0: `path`, θ; `loss`, f(θ; D(L,P)); `gradient`, its norm; `distance` from the oracle.
    """
    del context
    start = torch.tensor(settings.start)
    learner, provider = (Quadratic(torch.tensor([point]), start) for point in (LEARNER_POINT, PROVIDER_POINT))
    both = Quadratic(torch.tensor([LEARNER_POINT, PROVIDER_POINT]), start)
    state = {name: tensor.clone() for name, tensor in both.initial_state.items()}
    oracle = torch.tensor(_ORACLE, dtype=torch.float64)
    path = [state["theta"]]
    for round in range(1, settings.rounds + 1):
        rule = OptimizerSpec("sgd", settings.learning_rate * settings.decay ** (round - 1))
        for task in (learner, provider):
            state = phase(task, both, state, rule, settings.iterations, round)
        path.append(state["theta"])
    return {
        "path": [theta.tolist() for theta in path],
        "loss": [float(both.losses({"theta": theta}).sum()) for theta in path],
        # f = Σ ‖θ - x‖² / 2 over two points.
        "gradient": [float((2 * (theta - oracle)).norm()) for theta in path],
        "distance": [float((theta - oracle).norm()) for theta in path],
    }


def phase(
    task: Quadratic | Supervised,
    judge: Quadratic | Supervised,
    state: dict[str, Tensor],
    rule: OptimizerSpec,
    iterations: int,
    round: int,
) -> dict[str, Tensor]:
    """A party's training and what the other picks of it: the model of least global loss, every iteration being sampled."""
    start = {name: tensor.clone() for name, tensor in state.items()}
    models = [
        {name: tensor.detach().clone() for name, tensor in sample.state.items()}
        for sample in task.trajectory(start, rule, iterations=iterations, period=1, round=round)
    ]
    return models[argmin([float(judge.losses(model).sum()) for model in models])]


def _decreases(what: str) -> Any:
    def holds(metrics: Metrics) -> bool:
        values = metrics[what]
        return all(after <= before for before, after in itertools.pairwise(values))

    return holds


def _swings(metrics: Metrics) -> bool:
    sides = [theta[0] > _ORACLE[0] for theta in metrics["path"][1:]]
    return all(after != before for before, after in itertools.pairwise(sides))


def _draw_path(metrics: Metrics, figure: Figure) -> None:
    first, second = panels(figure, ["θ^r", "distance from the oracle"])
    first.plot(*zip(*metrics["path"], strict=True), "o-", markersize=3, label="assisted")
    for label, point, mark in (
        ("learner alone", LEARNER_POINT, "s"),
        ("provider alone", PROVIDER_POINT, "^"),
        ("oracle", _ORACLE, "*"),
    ):
        first.plot(*point, mark, label=label)
    legend_under(first)
    second.plot(range(len(metrics["distance"])), metrics["distance"], "o-", markersize=3)
    second.set_xlabel("round")


@dataclass(frozen=True)
class Horizons:
    """Sessions of different lengths, each with the theorem's step size for its length.

    Attributes:
        rounds: Numbers R of rounds.
        iterations: T, of each party.
    """

    rounds: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    iterations: int = 10

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return ("the paper's two points",)


def converge(settings: Horizons, context: ExperimentContext) -> Metrics:
    """The least norm of the global gradient in each session, and what the proof in A.3 bounds it by.

    With η = √(Δ / (3 R L T G²)) the proof says min ‖∇f(θ^r)‖² ≤ Δ / (η R) + 3 η L T G² = 2 √(3 Δ L T G² / R), r from 0 to
    R - 1, Δ being f(θ^0) - inf f. Steps of less than 1 stay between θ^0 and the two points, so G, the greatest norm of
    all three gradients, is that at one of these corners.

    Returns:
        By session: `rounds`, `rate` (η), `least` and `bound`, of the norm; `slope`, of log least over log R.
    """
    start = Regression().start
    points = torch.tensor([LEARNER_POINT, PROVIDER_POINT], dtype=torch.float64)
    oracle = torch.tensor(_ORACLE, dtype=torch.float64)
    corners = torch.tensor([start, LEARNER_POINT, PROVIDER_POINT], dtype=torch.float64)
    greatest = max(
        *(float((corners - point).norm(dim=1).max()) for point in points),
        float((2 * (corners - oracle)).norm(dim=1).max()),
    )
    # f(θ) - inf f = ‖θ - oracle‖².
    excess = float((corners[0] - oracle).square().sum())
    found: dict[str, list[float]] = {"rate": [], "least": [], "bound": []}
    for rounds in settings.rounds:
        context.say(f"  {rounds} rounds")
        constant = 3 * _SMOOTHNESS * settings.iterations * greatest**2
        rate = math.sqrt(excess / (rounds * constant))
        found["rate"].append(rate)
        found["least"].append(
            min(regress(Regression(rounds, settings.iterations, rate, 1.0), context)["gradient"][:-1])
        )
        found["bound"].append(math.sqrt(2 * math.sqrt(excess * constant / rounds)))
    slope, _ = np.polyfit(np.log(settings.rounds), np.log(found["least"]), 1)
    return {"rounds": list(settings.rounds), **found, "slope": float(slope)}


def _bounded(metrics: Metrics) -> bool:
    return all(least <= bound for least, bound in zip(metrics["least"], metrics["bound"], strict=True))


def _vanishes(metrics: Metrics) -> bool:
    return bool(metrics["slope"] <= -1 / 4)


def _draw_gradient(metrics: Metrics, figure: Figure) -> None:
    (axes,) = panels(figure, [""])
    axes.plot(metrics["rounds"], metrics["bound"], "--", color="gray", label="the proof's bound")
    axes.plot(metrics["rounds"], metrics["least"], "o-", markersize=3, label="measured")
    axes.set(xlabel="rounds R", ylabel="least norm of the global gradient", xscale="log", yscale="log")
    legend_under(axes)


EXPERIMENTS = (
    Experiment(
        "assisted-learning/fig-1",
        "Fig. 1: the way of a regression from round to round",
        {"smoke": Regression(rounds=2), "digits": Regression(), "paper": Regression()},
        "the paper's own sizes; its loss and its start are not given",
        regress,
        _draw_path,
        (
            Claim("the global loss never rises (proposition 1)", _decreases("loss"), ("smoke", "digits", "paper")),
            Claim("the model comes nearer to the oracle in every round", _decreases("distance")),
            Claim("after the first round it swings from side to side of the oracle", _swings),
        ),
    ),
    Experiment(
        "assisted-learning/theorem-1",
        "Theorem 1: the least norm of the global gradient goes to 0 as rounds grow, with η of order 1 / √(R L T G²)",
        {"smoke": Horizons((1, 4)), "digits": Horizons(), "paper": Horizons()},
        "the paper proves it and runs nothing: full gradients on the quadratic of Fig. 1, sessions of up to 4,096 rounds",
        converge,
        _draw_gradient,
        (
            Claim(
                "with the proof's step size the least norm is within the proof's bound, for every R",
                _bounded,
                ("smoke", "digits", "paper"),
            ),
            Claim("as R grows it falls at least as fast as the bound, R^(-1/4), on the whole", _vanishes),
        ),
    ),
)
"""What this module runs."""
