"""Figures 13 and 14 and remark 1 of Chen et al. 2023 (A.1): AssistDeep beside federated averaging."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comity.experiments.charts import bars, panels
from comity.experiments.reproduction import Claim, Experiment, Metrics, Printed
from comity.protocols.assisted_learning.studies.comparisons import (
    ABOVE,
    NEAR,
    THREE,
    Comparison,
    comparison,
    draw,
    over,
)
from comity.protocols.assisted_learning.studies.pair import Pair
from comity.protocols.assisted_learning.studies.sizes import (
    ALEXNET,
    RESNET,
    SMALL,
    SUBSTITUTE,
    SVHN,
    SVHN_RESNET,
    TINY,
    scales,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = ("AlexNet", "ResNet-18")
_SMALL_NAMES = ("mlp of 64", "mlp of 128")


def _federated(number: int, pairs: tuple[Pair, Pair], what: str, printed: tuple[float, ...]) -> Experiment[Comparison]:
    def of(names: tuple[str, ...], *pairs: Pair) -> Comparison:
        both = tuple((name, replace(pair, split="one-class")) for name, pair in zip(names, pairs, strict=True))
        return Comparison(both, (*THREE, "FedAvg"))

    small = replace(SMALL, optimizer="sgd", learning_rate=0.1, per_class=100)
    paper = [replace(pair, optimizer="sgd", learning_rate=rate) for pair, rate in zip(pairs, (0.01, 0.1), strict=True)]
    places = [(name, algorithm) for name in _NAMES for algorithm in ("AssistDeep", "FedAvg")]
    return Experiment(
        f"assisted-learning/fig-{number}",
        f"Fig. {number}: AssistDeep, FedAvg, SGD and Learner-SGD, the learner holds a single class, {what}",
        scales(
            of(_NAMES, *paper),
            of(_SMALL_NAMES, small, replace(small, hidden=128)),
            of(("mlp of 8",), TINY),
        ),
        SUBSTITUTE.format(what, "64 and 128")
        .replace("20 handwritten digits (scikit-learn) of each class", "50 handwritten digits (scikit-learn) a party")
        .replace(".003", ".1 (SGD)"),
        comparison,
        draw,
        (
            Claim("AssistDeep ends more than 10 points above FedAvg", over("AssistDeep", "FedAvg", by=10)),
            NEAR,
            ABOVE,
        ),
        tuple(
            Printed(f"{name}, {algorithm}, %", (name, algorithm, "last"), value)
            for (name, algorithm), value in zip(places, printed, strict=True)
        ),
        dict(zip(_NAMES, _SMALL_NAMES, strict=True)),
    )


def _load(metrics: Metrics) -> bool:
    """Both parties' models, R (T + T') / I of them, but for those that are not sent twice or not trained."""
    return all(one["AssistDeep"]["load"] <= 1.05 * 400 for one in metrics.values())


def _draw_load(metrics: Metrics, figure: Figure) -> None:
    (axes,) = panels(figure, [""])
    bars(
        axes,
        {name: {"formula": 400, "measured": one["AssistDeep"]["load"]} for name, one in metrics.items()},
        y="models",
    )


def _session(pair: Pair) -> Comparison:
    return Comparison((("R (T + T') / I = 400", pair),), ("AssistDeep",))


_REMARK_1 = Experiment(
    "assisted-learning/remark-1",
    "Remark 1: what crosses, in models",
    scales(_session(ALEXNET), _session(replace(SMALL, iterations=200)), _session(TINY), seeds=(0,)),
    SUBSTITUTE.format("CIFAR-10", 64).replace("T + T' = 100", "T + T' = 200"),
    comparison,
    _draw_load,
    (Claim("a session of R (T + T') / I = 400 moves 400 models, and little else (at most 5 %)", _load),),
    (Printed("bytes over those of a model", ("R (T + T') / I = 400", "AssistDeep", "load"), 400),),
)

EXPERIMENTS = (
    _federated(13, (ALEXNET, RESNET), "CIFAR-10", (60, 27, 71, 40)),
    _federated(14, (SVHN, SVHN_RESNET), "SVHN", (84, 57, 87, 74)),
    _REMARK_1,
)
"""What this module runs."""
