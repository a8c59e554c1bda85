"""Tables 1 and 6 of Wu et al. 2025, and which samples go where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from comity.experiments.charts import bars, legend_under, panels
from comity.experiments.reproduction import ExperimentContext, Metrics
from comity.protocols.learning_to_help.studies.lab import Pair, curve, mean, scores, shown, trained
from comity.protocols.learning_to_help.studies.pairs import TABLES
from comity.protocols.learning_to_help.studies.sweep import columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def table(pair: Pair, context: ExperimentContext) -> Metrics:
    """Who is right where r says LOCAL and where it says REMOTE; by class; the whole curve; samples of either kind."""
    runs: list[Any] = []
    shows: dict[str, Any] = {}
    for seed in pair.seeds:
        found = trained(pair, seed, context)
        rejector = found.rejector(TABLES)
        ranking = scores(rejector, found.test)
        remote = ranking > 0
        evaluation = found.evaluated(remote, TABLES)
        test, answer = found.test, found.answers["test"].argmax(dim=1)
        sides = {
            name: {
                "ratio": 100 * float(chosen.double().mean()),
                "m": _percent(test.local == test.labels, chosen),
                "e": _percent(answer == test.labels, chosen),
            }
            for name, chosen in (("LOCAL", ~remote), ("REMOTE", remote))
        }
        runs.append(
            {
                "sides": sides,
                "groups": {
                    name: {group: None if each is None else 100 * each for group, each in shares.items()}
                    for name, shares in (
                        ("local", evaluation.local),
                        ("remote", evaluation.remote),
                        ("joint", evaluation.joint),
                        ("asked", evaluation.reject_rate),
                    )
                },
                "point": shown(evaluation),
                "curve": curve(found, ranking, TABLES),
            }
        )
        if not shows:
            shows = {name: _pictures(test.inputs, chosen) for name, chosen in (("kept", ~remote), ("sent", remote))}
    return {**mean(runs), "risk_by_seed": [each["point"]["risk"] for each in runs], "samples": shows}


def _percent(right: Tensor, chosen: Tensor) -> float | None:
    return 100 * float(right[chosen].double().mean()) if bool(chosen.any()) else None


def _pictures(inputs: Tensor, chosen: Tensor, most: int = 16) -> list[Any]:
    pictures: list[Any] = inputs[chosen][:most, 0].to(torch.int64).tolist()
    return pictures


def draw_sides(metrics: Metrics, figure: Figure) -> None:
    """Bars of the table, and the whole curve."""
    left, right = panels(figure, ["accuracy where r says so, %", "accuracy and risk by reject rate"])
    bars(left, {side: {name: found[name] for name in ("m", "e")} for side, found in metrics["sides"].items()})
    _draw_curve(metrics, right)


def draw_groups(metrics: Metrics, figure: Figure) -> None:
    """Bars of the table, and the whole curve."""
    left, right = panels(figure, ["accuracy, and share asked, %", "accuracy and risk by reject rate"])
    groups = {name.split("_")[0]: None for name in metrics["groups"]["joint"]}
    by_group = {
        short: {
            who: shares[group]
            for who, shares in metrics["groups"].items()
            for group in shares
            if group.startswith(short)
        }
        for short in groups
    }
    bars(left, by_group)
    _draw_curve(metrics, right)


def _draw_curve(metrics: Metrics, axes: Any) -> None:
    axes.plot(*columns(metrics["curve"], "reject_rate", "accuracy"), label="accuracy")
    axes.plot(*columns(metrics["curve"], "reject_rate", "risk"), label="risk")
    point = metrics["point"]
    axes.plot([point["reject_rate"]] * 2, [point["accuracy"], point["risk"]], "ko", markersize=4, label="as r says")
    axes.set_xlabel("reject rate")
    legend_under(axes)


def draw_samples(metrics: Metrics, figure: Figure) -> None:
    """Sixteen of each."""
    figure.set_size_inches(7.0, 3.8)
    for at, (name, pictures) in enumerate(metrics["samples"].items()):
        for place, each in enumerate(pictures):
            row, column = divmod(place, 4)
            axes = figure.add_subplot(4, 9, row * 9 + column + 1 + 5 * at)
            axes.imshow(each, cmap="gray")
            axes.set_axis_off()
            if not place:
                axes.set_title(name, fontsize=9, loc="left")
