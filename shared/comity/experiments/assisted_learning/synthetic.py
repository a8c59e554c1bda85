"""Figures 1 and 2 and theorem 1 of Chen et al. 2023: AssistDeep where every model can be seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from comity.data import Splits, complementary
from comity.data import load as load_data
from comity.experiments.assisted_learning.opponents import Curve
from comity.experiments.charts import curves, panels
from comity.experiments.reproduction import Claim, Experiment, Lab, Metrics, Printed
from comity.protocols.assisted_learning.algorithm import argmin
from comity.training import Classification, OptimizerSpec, Quadratic, Secret
from comity.training.quadratic import LEARNER_POINT, PROVIDER_POINT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ORACLE = tuple((ours + theirs) / 2 for ours, theirs in zip(LEARNER_POINT, PROVIDER_POINT, strict=True))


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


def regress(settings: Regression, lab: Lab) -> Metrics:
    """AssistDeep with exact gradients, by the parties' local tasks.

    Returns:
        By round, from θ^0: `path`, θ; `loss`, f(θ; D(L,P)); `gradient`, its norm; `distance` from the oracle.
    """
    del lab
    start = torch.tensor(settings.start)
    learner, provider = (Quadratic(torch.tensor([point]), start) for point in (LEARNER_POINT, PROVIDER_POINT))
    both = Quadratic(torch.tensor([LEARNER_POINT, PROVIDER_POINT]), start)
    state = {name: tensor.clone() for name, tensor in both.initial_state.items()}
    oracle = torch.tensor(_ORACLE, dtype=torch.float64)
    path = [state["theta"]]
    for round in range(1, settings.rounds + 1):
        rule = OptimizerSpec("sgd", settings.learning_rate * settings.decay ** (round - 1))
        for task in (learner, provider):
            state = _best(task, both, state, rule, settings.iterations, round)
        path.append(state["theta"])
    return {
        "path": [theta.tolist() for theta in path],
        "loss": [float(both.losses({"theta": theta}).sum()) for theta in path],
        # f = Σ ‖θ - x‖² / 2 over two points.
        "gradient": [float((2 * (theta - oracle)).norm()) for theta in path],
        "distance": [float((theta - oracle).norm()) for theta in path],
    }


def _best(
    task: Quadratic | Classification,
    judge: Quadratic | Classification,
    state: dict[str, Tensor],
    rule: OptimizerSpec,
    iterations: int,
    round: int,
) -> dict[str, Tensor]:
    """The model of least global loss on a party's trajectory, every iteration being sampled."""
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
    first.legend(fontsize=6)
    second.plot(range(len(metrics["distance"])), metrics["distance"], "o-", markersize=3)
    second.set_xlabel("round")


@dataclass(frozen=True)
class Horizons:
    """Sessions of different lengths, each with the theorem's step size for its length.

    Attributes:
        rounds: Numbers R of rounds.
        iterations: T, of each party.
        scale: c of η = c / √(R T).
    """

    rounds: tuple[int, ...] = (1, 4, 16, 64, 256)
    iterations: int = 10
    scale: float = 1.0


def converge(settings: Horizons, lab: Lab) -> Metrics:
    """The least norm of the global gradient in each session, θ^0 to θ^(R-1) and the last model."""
    least = []
    for rounds in settings.rounds:
        rate = settings.scale / math.sqrt(rounds * settings.iterations)
        least.append(min(regress(Regression(rounds, settings.iterations, rate, 1.0), lab)["gradient"]))
    return {"rounds": list(settings.rounds), "least": least}


def _draw_gradient(metrics: Metrics, figure: Figure) -> None:
    (axes,) = panels(figure, [""])
    axes.plot(metrics["rounds"], metrics["least"], "o-", markersize=3)
    axes.set(xlabel="rounds R", ylabel="least gradient norm", xscale="log", yscale="log")


@dataclass(frozen=True)
class Logistic:
    """The classification example.

    Attributes:
        rounds: R.
        iterations: T, of each party; the paper names none.
        learning_rate: η.
        seeds: Of the points; means are taken over them.
    """

    rounds: int = 5
    iterations: int = 50
    learning_rate: float = 0.1
    seeds: tuple[int, ...] = (0,)


def classify(settings: Logistic, lab: Lab) -> Metrics:
    """AssistDeep on two clouds of points, full gradients; accuracies in percent, means over seeds.

    Returns:
        `by_round` of the assisted model, `alone`, `oracle`; and of the first seed the `points`, `labels` and classifiers.
    """
    lab.say(f"  {len(settings.seeds)} seeds")
    runs = [_classified(settings, seed) for seed in settings.seeds]
    count = len(runs)
    return {
        "alone": sum(run["alone"] for run in runs) / count,
        "oracle": sum(run["oracle"] for run in runs) / count,
        "by_round": [sum(values) / count for values in zip(*(run["by_round"] for run in runs), strict=True)],
        "points": runs[0]["points"],
        "labels": runs[0]["labels"],
        "lines": runs[0]["lines"],
    } | {f"round {at}": sum(run["by_round"][at - 1] for run in runs) / count for at in (1, 3) if at <= settings.rounds}


def _classified(settings: Logistic, seed: int) -> dict[str, Any]:
    splits = load_data("synthetic:fig2", root=None, seed=seed, image_size=None)
    shares = [
        splits.train.select(complementary(splits.train.labels, fraction=0.9, share=share, seed=seed))
        for share in ("learner", "provider")
    ]
    learner, provider, both = (
        Classification(
            _regression(),
            Splits(data, splits.test),
            normalization=((), ()),
            batch_size=len(data),
            evaluation_batch_size=1000,
            secret=Secret(b"synthetic", f"seed-{seed}"),
            device=torch.device("cpu"),
        )
        for data in (*shares, splits.train)
    )
    rule = OptimizerSpec("sgd", settings.learning_rate)
    state = {name: tensor.clone() for name, tensor in both.initial_state.items()}
    curve, lines = Curve(), {}
    for round in range(1, settings.rounds + 1):
        for task in (learner, provider):
            state = _best(task, both, state, rule, settings.iterations, round)
        curve.accuracy.append(100 * (both.test_accuracy(state) or 0.0))
        lines[f"round {round}"] = _line(state)
    ends = {}
    for name, task in (("alone", learner), ("oracle", both)):
        steps = 2 * settings.rounds * settings.iterations
        for sample in task.trajectory(task.initial_state, rule, iterations=steps + 1, period=steps, round=0):
            ends[name] = {key: tensor.clone() for key, tensor in sample.state.items()}
        lines[name] = _line(ends[name])
    return {
        **{name: 100 * (both.test_accuracy(end) or 0.0) for name, end in ends.items()},
        "by_round": curve.accuracy,
        "points": splits.train.inputs.tolist(),
        "labels": splits.train.labels.tolist(),
        "lines": lines,
    }


def _regression() -> nn.Linear:
    """Logistic regression with two outputs, from weights of 0, as is usual for a convex loss."""
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def _line(state: dict[str, Tensor]) -> list[float]:
    """Where a classifier changes its mind: a x + b y + c = 0."""
    return [*(state["weight"][1] - state["weight"][0]).tolist(), float(state["bias"][1] - state["bias"][0])]


def _draw_classifiers(metrics: Metrics, figure: Figure) -> None:
    first, second = panels(figure, ["classifiers", "accuracy, %"])
    points = torch.tensor(metrics["points"])
    labels = torch.tensor(metrics["labels"])
    for label, name in enumerate(("class A", "class B")):
        first.plot(*points[labels == label].T.tolist(), ".", markersize=3, label=name)
    ends: Sequence[float] = (-6.0, 6.0)
    for name, (a, b, c) in metrics["lines"].items():
        if name in {"round 1", "round 3", "alone", "oracle"} and abs(b) > 1e-9:
            first.plot(ends, [-(a * x + c) / b for x in ends], label=name, linewidth=1)
    first.set(ylim=(-6, 6), xlim=ends)
    first.legend(fontsize=6)
    curves(second, {"assisted": metrics["by_round"]})
    second.axhline(metrics["oracle"], linestyle="--", color="gray")
    second.axhline(metrics["alone"], linestyle=":", color="gray")


EXPERIMENTS = (
    Experiment(
        "assisted-learning/fig-1",
        "Fig. 1: the way of a regression from round to round",
        {"smoke": Regression(rounds=2), "cpu": Regression(), "paper": Regression()},
        "the paper's own sizes; its loss and its start are not given",
        regress,
        _draw_path,
        (
            Claim("the global loss never rises (proposition 1)", _decreases("loss"), ("smoke", "cpu", "paper")),
            Claim("the model comes nearer to the oracle in every round", _decreases("distance")),
            Claim("after the first round it swings from side to side of the oracle", _swings),
        ),
    ),
    Experiment(
        "assisted-learning/theorem-1",
        "Theorem 1: the least norm of the global gradient goes to 0 as rounds grow, with η of order 1 / √(R T)",
        {"smoke": Horizons((1, 4)), "cpu": Horizons(), "paper": Horizons()},
        "the paper proves it and runs nothing: full gradients on the quadratic of Fig. 1, sessions of up to 256 rounds",
        converge,
        _draw_gradient,
        (Claim("the least gradient norm falls with every fourfold number of rounds", _decreases("least")),),
    ),
    Experiment(
        "assisted-learning/fig-2",
        "Fig. 2: classifiers of two clouds of points, by round",
        {
            "smoke": Logistic(rounds=3, iterations=5),
            "cpu": Logistic(seeds=tuple(range(10))),
            "paper": Logistic(seeds=tuple(range(10))),
        },
        "the paper's own sizes; means over ten seeds, 10,000 test points of each class",
        classify,
        _draw_classifiers,
        (
            Claim(
                "one round brings the learner well above what it reaches alone (5 points)",
                lambda metrics: metrics["by_round"][0] > metrics["alone"] + 5,
            ),
            Claim(
                "after three rounds the classifier is within 1 point of the oracle",
                lambda metrics: metrics["by_round"][2] > metrics["oracle"] - 1,
            ),
        ),
        (
            Printed("learner alone, %", ("alone",), 70.0),
            Printed("after one round, %", ("round 1",), 81.9),
            Printed("after three rounds, %", ("round 3",), 82.5),
        ),
    ),
)
"""What this module runs."""
