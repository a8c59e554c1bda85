"""Figure 2 of Chen et al. 2023 (section 4.1): AssistDeep's classifiers of two clouds of points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from comity.data import Splits, complementary
from comity.data import load as load_data
from comity.experiments.charts import curves, legend_under, panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics, Printed
from comity.protocols.assisted_learning.studies.algorithms import Curve
from comity.protocols.assisted_learning.studies.regression import phase
from comity.training import OptimizerSpec, Secret, Supervised

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return ("points drawn from two normal distributions",)


def classify(settings: Logistic, context: ExperimentContext) -> Metrics:
    """AssistDeep on two clouds of points, full gradients; accuracies in percent, means over seeds.

    Returns:
        `by_round` of the assisted model, `alone`, `oracle`; and of the first seed the `points`, `labels` and classifiers.
    """
    context.say(f"  {len(settings.seeds)} seeds")
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
        Supervised(
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
    optimizer = OptimizerSpec("sgd", settings.learning_rate)
    state = {name: tensor.clone() for name, tensor in both.initial_state.items()}
    curve, lines = Curve(), {}
    for round in range(1, settings.rounds + 1):
        for task in (learner, provider):
            state = phase(task, both, state, optimizer, settings.iterations, round)
        curve.accuracy.append(100 * (both.test_accuracy(state) or 0.0))
        lines[f"round {round}"] = _line(state)
    ends = {}
    for name, task in (("alone", learner), ("oracle", both)):
        steps = 2 * settings.rounds * settings.iterations
        for sample in task.trajectory(task.initial_state, optimizer, iterations=steps + 1, period=steps, round=0):
            ends[name] = {key: tensor.clone() for key, tensor in sample.state.items()}
        lines[name] = _line(ends[name])
    return {
        **{name: 100 * (both.test_accuracy(end) or 0.0) for name, end in ends.items()},
        "by_round": curve.accuracy,
        "points": splits.train.all_inputs.tolist(),
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
            # Dashed, since the last rounds lie on it.
            first.plot(
                ends, [-(a * x + c) / b for x in ends], "--" if name == "oracle" else "-", label=name, linewidth=1
            )
    first.set(ylim=(-6, 6), xlim=ends)
    legend_under(first)
    second.axhline(metrics["oracle"], linestyle="--", color="gray", label="oracle")
    second.axhline(metrics["alone"], linestyle=":", color="gray", label="alone")
    curves(second, {"assisted": metrics["by_round"]})


EXPERIMENTS = (
    Experiment(
        "assisted-learning/fig-2",
        "Fig. 2: classifiers of two clouds of points, by round",
        {
            "smoke": Logistic(rounds=3, iterations=5),
            "digits": Logistic(seeds=tuple(range(10))),
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
