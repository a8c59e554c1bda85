"""Fig. 2 of Wu et al. 2025: what the costs of asking and of errors come to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from comity.experiments.charts import legend_below, panels
from comity.experiments.reproduction import ExperimentContext, Metrics
from comity.protocols.learning_to_help.algorithm import decide
from comity.protocols.learning_to_help.studies.lab import Pair, Trained, mean, said, shown, trained
from comity.protocols.learning_to_help.training import Costs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Sweep:
    """Costs that are tried.

    Attributes:
        pair: The client and the server; m and e are the same for all costs.
        c_e: Costs of asking.
        c_1: Costs of a wrong answer beside it.
    """

    pair: Pair
    c_e: tuple[float, ...] = (0.0, 0.1, 0.25, 0.4, 0.6)
    c_1: tuple[float, ...] = (0.5, 1.25)

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return self.pair.measured_on


def sweep(settings: Sweep, context: ExperimentContext) -> Metrics:
    """Accuracy, reject rate and risk for each pair of costs."""
    runs = []
    for seed in settings.pair.seeds:
        found = trained(settings.pair, seed, context)
        runs.append(
            {
                f"c_1 = {c_1:g}": [_at(found, Costs(c_e, c_1)) | {"c_e": c_e} for c_e in settings.c_e]
                for c_1 in settings.c_1
            }
        )
    return {"points": mean(runs)}


def _at(found: Trained, costs: Costs) -> dict[str, Any]:
    remote = decide(said(found.rejector(costs), found.test))
    return shown(found.evaluated(remote, costs))


def draw_sweep(metrics: Metrics, figure: Figure) -> None:
    """As the paper's figure 2."""
    left, middle, right = panels(figure, ["accuracy and reject rate", "reject rate and c_e", "risk and c_e"])
    for name, points in metrics["points"].items():
        left.plot(*columns(points, "reject_rate", "accuracy"), "o-", label=name)
        middle.plot(*columns(points, "c_e", "reject_rate"), "o-", label=name)
        (line,) = right.plot(*columns(points, "c_e", "risk"), "o-", label=name)
        for end in ("risk_never_ask", "risk_always_ask"):
            right.plot(*columns(points, "c_e", end), ":", color=line.get_color(), linewidth=0.8)
    for axes, label in ((left, "reject rate"), (middle, "c_e"), (right, "c_e; dotted: never, always asking")):
        axes.set_xlabel(label)
    legend_below(figure)


def columns(points: Any, x: str, y: str) -> tuple[list[float], list[float]]:
    """Two fields of points, as a line is drawn."""
    return [each[x] for each in points], [each[y] for each in points]


def falls_with_cost(metrics: Metrics) -> bool:
    """Whether the reject rate falls as c_e rises, up to a hundredth."""
    rows = [[each["reject_rate"] for each in points] for points in metrics["points"].values()]
    return all(after <= before + 0.01 for row in rows for before, after in pairwise(row))


def below_ends(points: Any) -> bool:
    """Whether the risk of each point is at most that of never and of always asking."""
    return all(each["risk"] <= min(each["risk_never_ask"], each["risk_always_ask"]) + 1e-3 for each in points)
