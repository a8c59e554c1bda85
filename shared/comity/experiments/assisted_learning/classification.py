"""Figures 3 to 8, 13, 14 and 17 to 20, tables 1 and 2 and remark 1 of Chen et al. 2023: AssistDeep and its opponents."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from comity.experiments.assisted_learning.opponents import Opponents, mean_of_last
from comity.experiments.assisted_learning.pair import Pair
from comity.experiments.charts import curves, panels
from comity.experiments.reproduction import Claim, Experiment, Lab, Metrics, Printed, Scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_THREE = ("AssistDeep", "SGD", "Learner-SGD")


@dataclass(frozen=True)
class Contest:
    """Algorithms on pairs.

    Attributes:
        pairs: By what they are called.
        algorithms: By the paper's names.
        seeds: Each pair is run with these and the mean taken.
    """

    pairs: tuple[tuple[str, Pair], ...]
    algorithms: tuple[str, ...] = _THREE
    seeds: tuple[int, ...] = (0,)


def contest(settings: Contest, lab: Lab) -> Metrics:
    """Runs each algorithm on each pair.

    Returns:
        By pair and algorithm: `accuracy` and `loss` by round, means over seeds; `last`, the mean accuracy of the last four
        rounds, and `last_nine`, of the last nine, in percent; `load`, the bytes that crossed over those of a model.
    """
    return {name: _on(name, pair, settings, lab) for name, pair in settings.pairs}


def _on(name: str, pair: Pair, settings: Contest, lab: Lab) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {algorithm: [] for algorithm in settings.algorithms}
    for seed in settings.seeds:
        lab.say(f"  {name}, seed {seed}")
        opponents = Opponents(replace(pair, seed=seed), lab.shelf)
        for algorithm in settings.algorithms:
            curve = opponents.run(algorithm)
            load = curve.bytes / (4 * opponents.parameters)
            found[algorithm].append({"accuracy": curve.accuracy, "loss": curve.loss, "load": load})
    return {algorithm: _mean(runs) for algorithm, runs in found.items()}


def _mean(runs: list[dict[str, Any]]) -> dict[str, Any]:
    accuracy = [fmean(values) for values in zip(*(run["accuracy"] for run in runs), strict=True)]
    return {
        "accuracy": accuracy,
        "loss": [fmean(values) for values in zip(*(run["loss"] for run in runs), strict=True)],
        "last": 100 * mean_of_last(accuracy, 4),
        "last_nine": 100 * mean_of_last(accuracy, 9),
        "load": fmean(run["load"] for run in runs),
    }


def draw(metrics: Metrics, figure: Figure) -> None:
    """Test accuracy over rounds, a panel for each pair."""
    places = panels(figure, list(metrics), rows=1 + (len(metrics) > 3))
    for axes, (name, one) in zip(places, metrics.items(), strict=True):
        curves(axes, {each: row["accuracy"] for each, row in one.items()}, title=name, y="test accuracy")


def _over(winner: str, loser: str, *, by: float = 0.0, pairs: tuple[str, ...] = ()) -> Any:
    """Whether one algorithm ends above another (in points, less than none for "near") on these pairs, or on all."""

    def holds(metrics: Metrics) -> bool:
        ones = [one for name, one in metrics.items() if not pairs or name in pairs]
        return all(bool(one[winner]["last"] - one[loser]["last"] > by) for one in ones)

    return holds


def _alike(*, within: float) -> Any:
    """Whether AssistDeep ends alike on all pairs."""

    def holds(metrics: Metrics) -> bool:
        ends = [one["AssistDeep"]["last"] for one in metrics.values()]
        return bool(max(ends) - min(ends) <= within)

    return holds


def _gain_grows(metrics: Metrics) -> bool:
    gains = [one["AssistDeep"]["last"] - one["Learner-SGD"]["last"] for one in metrics.values()]
    return all(after < before for before, after in itertools.pairwise(gains))


def _never_rises(metrics: Metrics) -> bool:
    losses = [one["AssistDeep"]["loss"] for one in metrics.values()]
    return all(after <= before for each in losses for before, after in itertools.pairwise(each))


_NEAR = Claim("AssistDeep comes within 3 points of SGD on all data", _over("AssistDeep", "SGD", by=-3))
_ABOVE = Claim("AssistDeep ends above Learner-SGD", _over("AssistDeep", "Learner-SGD"))
_MONOTONE = Claim(
    "the global loss never rises from round to round (proposition 1)", _never_rises, ("smoke", "cpu", "paper")
)

ALEXNET = Pair(data="cifar10", model="alexnet-cifar")
RESNET = replace(ALEXNET, model="resnet18-cifar")
SVHN = replace(ALEXNET, data="svhn")
SVHN_RESNET = replace(RESNET, data="svhn")
SMALL = Pair(
    data="digits", model="mlp", hidden=64, per_class=20, iterations=100, period=5, learning_rate=3e-3, batch_size=32
)
"""The demo's digits, with the model's width in place of another architecture."""
_SUBSTITUTE = (
    "in place of {} 20 handwritten digits (scikit-learn) of each class and an mlp with {} hidden units; T + T' = 100, "
    "I = 5, learning rate .003, batches of 32"
)


def _scales(paper: Contest, small: Contest, seeds: tuple[int, ...] = (0,)) -> Mapping[Scale, Contest]:
    """The paper's contest, a small one, and the same at smoke scale."""
    pairs = tuple(
        (name, replace(pair, per_class=24, rounds=2, iterations=min(pair.iterations, 20), period=5))
        for name, pair in small.pairs
    )
    return {"smoke": replace(small, pairs=pairs), "cpu": replace(small, seeds=seeds), "paper": paper}


def _gammas(pair: Pair, *gammas: float) -> Contest:
    return Contest(tuple((f"γ = {gamma:g}", replace(pair, gamma=gamma)) for gamma in gammas))


def _imbalance(number: int, pair: Pair, what: str, hidden: int, seeds: tuple[int, ...] = (0,)) -> Experiment[Contest]:
    gammas = (0.0, 0.3, 0.7, 1.0)
    return Experiment(
        f"assisted-learning/fig-{number}",
        f"Fig. {number}: AssistDeep, SGD and Learner-SGD by the learner's imbalance, {what}",
        _scales(_gammas(pair, *gammas), _gammas(replace(SMALL, hidden=hidden), *gammas), seeds),
        _SUBSTITUTE.format(what, hidden),
        contest,
        draw,
        (
            _NEAR,
            _ABOVE,
            Claim("the more imbalanced the learner's data, the greater its gain", _gain_grows),
            _MONOTONE,
        ),
    )


def _periods(number: int, pair: Pair, what: str, hidden: int) -> Experiment[Contest]:
    def of(pair: Pair, *periods: int) -> Contest:
        pairs = tuple(
            (f"γ = {gamma:g}, I = {period}", replace(pair, gamma=gamma, period=period))
            for gamma in (0.0, 1.0)
            for period in periods
        )
        return Contest(pairs, ("AssistDeep", "SGD"))

    return Experiment(
        f"assisted-learning/fig-{number}",
        f"Fig. {number}: sampling periods, {what}",
        _scales(of(pair, 20, 50), of(replace(SMALL, hidden=hidden), 2, 5)),
        _SUBSTITUTE.format(what, hidden).replace("I = 5", "I = 2 and 5"),
        contest,
        draw,
        (Claim("a low sampling frequency already comes within 3 points of SGD", _over("AssistDeep", "SGD", by=-3)),),
    )


def _federated(number: int, pairs: tuple[Pair, Pair], what: str, printed: tuple[float, ...]) -> Experiment[Contest]:
    names = ("AlexNet", "ResNet-18")

    def of(first: Pair, second: Pair) -> Contest:
        both = tuple(
            (name, replace(pair, split="one-class")) for name, pair in zip(names, (first, second), strict=True)
        )
        return Contest(both, (*_THREE, "FedAvg"))

    small = replace(SMALL, optimizer="sgd", learning_rate=0.1, per_class=100)
    paper = [replace(pair, optimizer="sgd", learning_rate=rate) for pair, rate in zip(pairs, (0.01, 0.1), strict=True)]
    scales = _scales(of(*paper), of(small, replace(small, hidden=128)))
    places = [(name, algorithm) for name in names for algorithm in ("AssistDeep", "FedAvg")]
    return Experiment(
        f"assisted-learning/fig-{number}",
        f"Fig. {number}: AssistDeep, FedAvg, SGD and Learner-SGD, the learner holds a single class, {what}",
        scales,
        _SUBSTITUTE.format(what, "64 and 128").replace("20 handwritten", "50 handwritten").replace(".003", ".1 (SGD)"),
        contest,
        draw,
        (
            Claim("AssistDeep ends more than 10 points above FedAvg", _over("AssistDeep", "FedAvg", by=10)),
            _NEAR,
            _ABOVE,
        ),
        tuple(
            Printed(f"{name}, {algorithm}, %", (name, algorithm, "last"), value)
            for (name, algorithm), value in zip(places, printed, strict=True)
        ),
    )


def _four() -> tuple[tuple[str, Pair], ...]:
    """The paper's four settings of A.7 and A.8."""
    named = {
        "AlexNet, CIFAR-10": ALEXNET,
        "ResNet-18, CIFAR-10": RESNET,
        "AlexNet, SVHN": SVHN,
        "ResNet-18, SVHN": SVHN_RESNET,
    }
    return tuple(named.items())


def _iterations(pair: Pair, *totals: int) -> Contest:
    return Contest(tuple((f"T + T' = {total}", replace(pair, iterations=total)) for total in totals), ("AssistDeep",))


_T = (2000, 6000, 12000)
_TABLE_1 = Experiment(
    "assisted-learning/table-1",
    "Table 1: AssistDeep and Revised-AssistDeep by the learner's iterations",
    _scales(
        # T is the learner's share, 13 of 63 of all iterations where γ is .3 (18,500 and 25,000 samples).
        Contest(
            tuple((f"T = {t}", replace(ALEXNET, iterations=round(t * 43500 / 18500))) for t in _T),
            ("AssistDeep", "Revised-AssistDeep"),
        ),
        Contest(
            tuple((f"T = {t}", replace(SMALL, iterations=total)) for t, total in zip(_T, (100, 300, 600), strict=True)),
            ("AssistDeep", "Revised-AssistDeep"),
        ),
    ),
    _SUBSTITUTE.format("CIFAR-10", 64).replace(
        "T + T' = 100", "T + T' = 100, 300 and 600 for T = 2,000, 6,000 and 12,000"
    ),
    contest,
    draw,
    (Claim("AssistDeep ends above Revised-AssistDeep for every T", _over("AssistDeep", "Revised-AssistDeep")),),
    tuple(
        Printed(f"T = {t}, {name}, %", (f"T = {t}", name, "last"), value)
        for name, values in (("AssistDeep", (66.0, 65.6, 66.2)), ("Revised-AssistDeep", (65.3, 64.8, 64.1)))
        for t, value in zip(_T, values, strict=True)
    ),
)

_TABLE_2_ROWS = {
    "CIFAR-10, γ = 0.5": (66.6, 58.4, 64.0, 66.0),
    "CIFAR-10, γ = 1": (68.1, 63.2, 64.0, 68.1),
    "SVHN, γ = 0.5": (86.8, 82.4, 85.6, 86.8),
    "SVHN, γ = 1": (87.5, 83.9, 85.6, 87.3),
}
_ALL = ("SGD", "Learner-SGD", "Provider-SGD", "AssistDeep")
_TABLE_2 = Experiment(
    "assisted-learning/table-2",
    "Table 2: SGD, Learner-SGD, Provider-SGD and AssistDeep, an AlexNet",
    _scales(
        Contest(
            tuple(
                (f"{name}, γ = {gamma:g}", replace(pair, gamma=gamma))
                for name, pair in (("CIFAR-10", ALEXNET), ("SVHN", SVHN))
                for gamma in (0.5, 1.0)
            ),
            _ALL,
        ),
        Contest(
            tuple(
                (f"{name}, γ = {gamma:g}", replace(SMALL, gamma=gamma, hidden=hidden))
                for name, hidden in (("CIFAR-10", 64), ("SVHN", 128))
                for gamma in (0.5, 1.0)
            ),
            _ALL,
        ),
    ),
    _SUBSTITUTE.format("CIFAR-10 and SVHN", "64 and 128"),
    contest,
    draw,
    (
        Claim("AssistDeep ends above Provider-SGD", _over("AssistDeep", "Provider-SGD")),
        Claim("Provider-SGD ends above Learner-SGD", _over("Provider-SGD", "Learner-SGD")),
        _NEAR,
    ),
    tuple(
        Printed(f"{name}, {algorithm}, %", (name, algorithm, "last_nine"), value)
        for name, values in _TABLE_2_ROWS.items()
        for algorithm, value in zip(_ALL, values, strict=True)
    ),
)
_RESAMPLED = Experiment(
    "assisted-learning/fig-17",
    "Fig. 17: Learner-SGD, Resampled-Learner-SGD and AssistDeep, γ = .3",
    _scales(
        Contest(_four(), ("AssistDeep", "Learner-SGD", "Resampled-Learner-SGD")),
        Contest((("digits", SMALL),), ("AssistDeep", "Learner-SGD", "Resampled-Learner-SGD")),
    ),
    _SUBSTITUTE.format("the four settings", 64),
    contest,
    draw,
    (
        Claim("AssistDeep ends above Resampled-Learner-SGD", _over("AssistDeep", "Resampled-Learner-SGD")),
        Claim("resampling alone gains less than 3 points", _over("Learner-SGD", "Resampled-Learner-SGD", by=-3)),
    ),
)
_TOTALS = Experiment(
    "assisted-learning/fig-18",
    "Fig. 18: AssistDeep by the number of local iterations, γ = .3 (AlexNet, CIFAR-10)",
    _scales(_iterations(ALEXNET, 500, 1000, 2000, 4000), _iterations(SMALL, 25, 50, 100, 200)),
    _SUBSTITUTE.format("an AlexNet on CIFAR-10", 64).replace("T + T' = 100", "T + T' = 25, 50, 100 and 200"),
    contest,
    draw,
    (Claim("the final accuracies lie within 3 points of each other", _alike(within=3)),),
)
_CATEGORIES = Experiment(
    "assisted-learning/fig-19",
    "Fig. 19: the provider lacks the learner's major class, γ = .1",
    _scales(
        Contest(
            (
                ("AlexNet, SVHN", replace(SVHN, gamma=0.1, split="categories")),
                ("ResNet-18, CIFAR-10", replace(RESNET, gamma=0.1, split="categories")),
            )
        ),
        Contest((("digits", replace(SMALL, gamma=0.1, split="categories")),)),
    ),
    _SUBSTITUTE.format("SVHN and CIFAR-10", 64),
    contest,
    draw,
    (_ABOVE, _NEAR),
)


def _load(metrics: Metrics) -> bool:
    """Both parties' models, R (T + T') / I of them, but for those that are not sent twice or not trained."""
    return all(one["AssistDeep"]["load"] <= 1.05 * 400 for one in metrics.values())


_REMARK_1 = Experiment(
    "assisted-learning/remark-1",
    "Remark 1: what crosses, in models",
    _scales(
        Contest((("R (T + T') / I = 400", ALEXNET),), ("AssistDeep",)),
        Contest((("R (T + T') / I = 400", replace(SMALL, iterations=200)),), ("AssistDeep",)),
    ),
    _SUBSTITUTE.format("CIFAR-10", 64).replace("T + T' = 100", "T + T' = 200"),
    contest,
    draw,
    (Claim("a session of R (T + T') / I = 400 moves 400 models, and little else (at most 5 %)", _load),),
    (Printed("bytes over those of a model", ("R (T + T') / I = 400", "AssistDeep", "load"), 400),),
)

EXPERIMENTS = (
    _imbalance(3, ALEXNET, "an AlexNet on CIFAR-10", 64, (0, 1, 2)),
    _imbalance(4, RESNET, "a ResNet-18 on CIFAR-10", 128, (0, 1, 2)),
    _imbalance(5, SVHN, "an AlexNet on SVHN", 32),
    _imbalance(6, SVHN_RESNET, "a ResNet-18 on SVHN", 256),
    _periods(7, ALEXNET, "an AlexNet on CIFAR-10", 64),
    _periods(8, RESNET, "a ResNet-18 on CIFAR-10", 128),
    _federated(13, (ALEXNET, RESNET), "CIFAR-10", (60, 27, 71, 40)),
    _federated(14, (SVHN, SVHN_RESNET), "SVHN", (84, 57, 87, 74)),
    _RESAMPLED,
    _TOTALS,
    _CATEGORIES,
    _TABLE_1,
    _TABLE_2,
    _REMARK_1,
)
"""What this module runs."""
