"""Fig. 7 of Wu et al. 2025: bounded reject rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from comity.experiments.charts import legend_below, panels
from comity.experiments.reproduction import ExperimentContext, Metrics
from comity.protocols.learning_to_help.reject_rate import confidence_scores, fit_reject_rule, stochastic_post_hoc
from comity.protocols.learning_to_help.studies.lab import Pair, curve, mean, scores, shown, trained
from comity.protocols.learning_to_help.studies.pairs import BOUNDED, RATES, WAYS
from comity.protocols.learning_to_help.studies.sweep import columns
from comity.randomness import derive, generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Bounded:
    """Bounded reject rates.

    Attributes:
        pair: The client and the server.
        rates: The bounds.
    """

    pair: Pair
    rates: tuple[float, ...] = RATES

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return self.pair.measured_on


def bounded(settings: Bounded, context: ExperimentContext) -> Metrics:
    """Accuracy, rate and risk by the bound, for each way to hold it."""
    runs = []
    for seed in settings.pair.seeds:
        found = trained(settings.pair, seed, context)
        rejector = found.rejector(BOUNDED)
        ranking = {"threshold": scores(rejector, found.test)}
        ranking["confidence"] = confidence_scores(found.test.logits)
        calibrated = {
            "threshold": scores(rejector, found.calibration),
            "confidence": confidence_scores(found.calibration.logits),
        }
        draws = generator(derive(seed, "bounded"))
        points: dict[str, Any] = {way: [] for way in WAYS}
        for rate in settings.rates:
            decided = {
                way: fit_reject_rule(calibrated[way], rate).decide(ranking[way], draws)
                for way in ("threshold", "confidence")
            }
            asks = float((calibrated["threshold"] > 0).double().mean())
            decided["post hoc"] = stochastic_post_hoc(ranking["threshold"] > 0, asks, rate, draws)
            decided["random"] = torch.rand(len(ranking["threshold"]), generator=draws) < min(asks, rate)
            for way in WAYS:
                points[way].append(shown(found.evaluated(decided[way], BOUNDED)) | {"bound": rate})
        curves = {way: curve(found, ranking[way], BOUNDED) for way in ("threshold", "confidence")}
        runs.append({"points": points, "curves": curves})
    return mean(runs)  # type: ignore[no-any-return]


def draw_bounded(metrics: Metrics, figure: Figure) -> None:
    """Accuracy and rate by the bound, and the whole curves."""
    left, middle, right = panels(figure, ["accuracy by bound", "reject rate by bound", "accuracy by reject rate"])
    colors = {}
    for way, points in metrics["points"].items():
        (line,) = left.plot(*columns(points, "bound", "accuracy"), "o-", markersize=3, label=way)
        colors[way] = line.get_color()
        middle.plot(*columns(points, "bound", "reject_rate"), "o-", markersize=3, label=way)
    bounds = [each["bound"] for each in metrics["points"]["threshold"]]
    middle.plot(bounds, bounds, "k:", linewidth=0.8)
    for way, points in metrics["curves"].items():
        right.plot(*columns(points, "reject_rate", "accuracy"), color=colors[way])
    for axes, label in ((left, "bound"), (middle, "bound"), (right, "reject rate")):
        axes.set_xlabel(label)
    legend_below(figure)


def beats(metrics: Metrics, better: str, worse: str) -> bool:
    """Whether one way's accuracy is above another's, in the mean over the bounds."""
    sums = {way: sum(each["accuracy"] for each in metrics["points"][way]) for way in (better, worse)}
    return bool(sums[better] > sums[worse])
