"""Algorithms against each other on pairs of a learner and a provider: what most figures of Chen et al. 2023 show."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from comity.experiments.charts import curves, legend_below, panels
from comity.experiments.reproduction import SCALES, Claim, ExperimentContext, Metrics
from comity.protocols.assisted_learning.studies.algorithms import Algorithms, mean_of_last
from comity.protocols.assisted_learning.studies.pair import Pair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THREE = ("AssistDeep", "SGD", "Learner-SGD")


@dataclass(frozen=True)
class Comparison:
    """Algorithms on pairs.

    Attributes:
        pairs: By what they are called.
        algorithms: By the paper's names.
        seeds: Each pair is run with these and the mean taken.
    """

    pairs: tuple[tuple[str, Pair], ...]
    algorithms: tuple[str, ...] = THREE
    seeds: tuple[int, ...] = (0,)

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return tuple(dict.fromkeys(each for _, pair in self.pairs for each in pair.measured_on))


def comparison(settings: Comparison, context: ExperimentContext) -> Metrics:
    """Runs each algorithm on each pair.

    Returns:
        By pair and algorithm: `accuracy` and `loss` by round, means over seeds; `last`, the mean accuracy of the last four
        rounds, and `last_nine`, of the last nine, in percent; `load`, the bytes that crossed over those of a model; and
        `spread`, the least and the greatest `last` of a seed. Where the parties have models of their own, `own`, the final
        accuracy of the learner's, in percent; where there is noise, `privacy`, what it guarantees.
    """
    return {name: _on(name, pair, settings, context) for name, pair in settings.pairs}


def _on(name: str, pair: Pair, settings: Comparison, context: ExperimentContext) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {algorithm: [] for algorithm in settings.algorithms}
    for seed in settings.seeds:
        context.say(f"  {name}, seed {seed}")
        algorithms = Algorithms(replace(pair, seed=seed), context.datasets)
        for algorithm in settings.algorithms:
            curve = algorithms.run(algorithm)
            load = curve.bytes / (4 * algorithms.parameters)
            found[algorithm].append(asdict(curve) | {"load": load})
    return {algorithm: _mean(runs) for algorithm, runs in found.items()}


def _mean(runs: list[dict[str, Any]]) -> dict[str, Any]:
    accuracy = [fmean(values) for values in zip(*(run["accuracy"] for run in runs), strict=True)]
    ends = [100 * mean_of_last(run["accuracy"], 4) for run in runs]
    own = [run["own"] for run in runs if run["own"] is not None]
    return {
        "accuracy": accuracy,
        "loss": [fmean(values) for values in zip(*(run["loss"] for run in runs), strict=True)],
        "last": 100 * mean_of_last(accuracy, 4),
        "last_nine": 100 * mean_of_last(accuracy, 9),
        "spread": [min(ends), max(ends)],
        "load": fmean(run["load"] for run in runs),
        **({"own": 100 * fmean(own)} if own else {}),
        **({"privacy": runs[0]["privacy"]} if runs[0]["privacy"] else {}),
    }


def draw(metrics: Metrics, figure: Figure, *, level: bool = False) -> None:
    """Test accuracy over rounds, a panel for each pair; `level` gives all of them the same vertical range."""
    places = panels(figure, list(metrics), rows=1 + (len(metrics) > 3), level=level)
    for axes, one in zip(places, metrics.values(), strict=True):
        lines = {each: row["accuracy"] for each, row in one.items()}
        curves(axes, lines, y="test accuracy", legend=False)
    legend_below(figure)


def draw_level(metrics: Metrics, figure: Figure) -> None:
    """The same, all in one vertical range."""
    draw(metrics, figure, level=True)


def draw_together(metrics: Metrics, figure: Figure) -> None:
    """Test accuracy over rounds, all pairs in one panel."""
    (axes,) = panels(figure, [""])
    lines = {
        name if len(one) == 1 else f"{name}, {each}": row["accuracy"]
        for name, one in metrics.items()
        for each, row in one.items()
    }
    curves(axes, lines, y="test accuracy")


def over(winner: str, loser: str, *, by: float = 0.0) -> Any:
    """Whether one algorithm ends above another on all pairs, in points; less than none for "near"."""

    def holds(metrics: Metrics) -> bool:
        return all(bool(one[winner]["last"] - one[loser]["last"] > by) for one in metrics.values())

    return holds


def alike(*, within: float) -> Any:
    """Whether AssistDeep ends alike on all pairs, or on all of a group, which a semicolon sets apart in their names."""

    def holds(metrics: Metrics) -> bool:
        groups: dict[str, list[float]] = {}
        for name, one in metrics.items():
            groups.setdefault(name.rpartition("; ")[0], []).append(one["AssistDeep"]["last"])
        return all(max(ends) - min(ends) <= within for ends in groups.values())

    return holds


def gain_grows(metrics: Metrics) -> bool:
    """Whether AssistDeep's lead over Learner-SGD shrinks from pair to pair, as the imbalance does."""
    gains = [one["AssistDeep"]["last"] - one["Learner-SGD"]["last"] for one in metrics.values()]
    return all(after < before for before, after in itertools.pairwise(gains))


def never_rises(metrics: Metrics) -> bool:
    """Whether AssistDeep's global loss never rises."""
    losses = [one["AssistDeep"]["loss"] for one in metrics.values()]
    return all(after <= before for each in losses for before, after in itertools.pairwise(each))


NEAR = Claim("AssistDeep comes within 3 points of SGD on all data", over("AssistDeep", "SGD", by=-3))
ABOVE = Claim("AssistDeep ends above Learner-SGD", over("AssistDeep", "Learner-SGD"))
MONOTONE = Claim("the global loss never rises from round to round (proposition 1)", never_rises, SCALES)
