"""Fig. 4 of Wu et al. 2025: a client that trains its rejector on copies of the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from comity.experiments.charts import bars, panels
from comity.experiments.reproduction import ExperimentContext, Metrics
from comity.protocols.learning_to_help.algorithm import decide
from comity.protocols.learning_to_help.studies.lab import Pair, Trained, mean, said, shown, trained
from comity.protocols.learning_to_help.studies.pairs import TABLES
from comity.protocols.learning_to_help.training import predictions, rejector_training, server_training

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Copies:
    """Intermittent availability: how often the client gets a copy of e.

    Attributes:
        pair: The client and the server; half of its samples are for r.
        every: Steps between two copies; 0 for one, after a pass over all samples.
    """

    pair: Pair
    every: tuple[int, ...] = (1, 10, 100, 0)

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return self.pair.measured_on


def intermittent(settings: Copies, context: ExperimentContext) -> Metrics:
    """Accuracy and risk by S, where e and r are trained side by side."""
    runs = []
    for seed in settings.pair.seeds:
        found = trained(settings.pair, seed, context)
        context.say(f"  copies of e, seed {seed}")
        runs.append({_every(every): _with_copies(found, every) for every in settings.every})
    return {"points": mean(runs)}


def _every(every: int) -> str:
    return f"S = {every}" if every else "S = |D|"


def _with_copies(found: Trained, every: int) -> dict[str, Any]:
    """E steps on one half of the server's samples; r, on the other, goes by the last copy of e that it got."""
    pair, own, device = found.pair, found.server, found.server.features.device
    half, every_label = len(own.labels) // 2, own.labels.to(device)
    e = server_training(found.classifier(), own.features[:half], every_label[:half], found.fitting, found.secret, 2)
    features, labels = own.features[half:], every_label[half:]
    correct = torch.zeros(len(labels), dtype=torch.bool, device=device)
    r = rejector_training(
        found.judge(),
        features,
        own.local[half:].to(device) == labels,
        correct,
        costs=TABLES,
        fitting=found.fitting_judge,
        secret=found.secret,
        place=(2,),
    )
    period = every or e.steps // pair.epochs
    while e.step < e.steps:
        e.advance(e.step + period)
        # Until the first copy is there, r waits.
        correct.copy_(predictions(e.model, features) == labels)
        r.advance(e.step)
    remote = decide(said(r.model, found.test))
    return shown(found.evaluated(remote, TABLES, said(e.model, found.test)))


def draw_copies(metrics: Metrics, figure: Figure) -> None:
    """Bars by S."""
    left, right = panels(figure, ["accuracy and reject rate", "risk"])
    points = metrics["points"]
    bars(left, {name: {key: each[key] for key in ("accuracy", "reject_rate")} for name, each in points.items()})
    left.set_ylim(0, 1.15)
    keys = ("risk", "risk_never_ask", "risk_always_ask")
    bars(right, {name: {key: each[key] for key in keys} for name, each in points.items()})
