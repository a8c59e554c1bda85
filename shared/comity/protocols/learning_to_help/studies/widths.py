"""A larger classifier for the same client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comity.experiments.charts import bars, panels
from comity.experiments.reproduction import ExperimentContext, Metrics
from comity.protocols.learning_to_help.algorithm import decide
from comity.protocols.learning_to_help.studies.lab import Pair, mean, said, shown, trained
from comity.protocols.learning_to_help.studies.pairs import TABLES
from comity.protocols.learning_to_help.training import fit_server

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Widths:
    """A larger e for the same client.

    Attributes:
        pair: The client and the server.
        hidden: Widths of e.
    """

    pair: Pair
    hidden: tuple[int, ...] = (4, 16, 64, 256)

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return self.pair.measured_on


def wider(settings: Widths, context: ExperimentContext) -> Metrics:
    """Accuracy and risk by the width of e; m and r stay as they are, and so does what is asked."""
    runs = []
    for seed in settings.pair.seeds:
        found = trained(settings.pair, seed, context)
        remote = decide(said(found.rejector(TABLES), found.test))
        own, points = found.server, dict[str, Any]()
        labels = own.labels.to(own.features.device)
        for width in settings.hidden:
            classifier = fit_server(found.classifier(width), own.features, labels, found.fitting, found.secret, 3)
            evaluation = found.evaluated(remote, TABLES, said(classifier, found.test))
            points[f"{width} units"] = shown(evaluation) | {"alone": evaluation.remote["all"]}
        runs.append(points)
    return {"points": mean(runs)}


def draw_widths(metrics: Metrics, figure: Figure) -> None:
    """Bars by width."""
    left, right = panels(figure, ["accuracy", "risk"])
    points: Mapping[str, Any] = metrics["points"]
    bars(left, {name: {"e alone": each["alone"], "together": each["accuracy"]} for name, each in points.items()})
    keys = ("risk", "risk_never_ask", "risk_always_ask")
    bars(right, {name: {key: each[key] for key in keys} for name, each in points.items()})


def spread(metrics: Metrics) -> float:
    """How far the risks of the widths are from each other."""
    risks: list[float] = [each["risk"] for each in metrics["points"].values()]
    return max(risks) - min(risks)
