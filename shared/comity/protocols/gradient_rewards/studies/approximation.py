"""Figure 1 of Xu et al. 2021: two approximations of exact cosine gradient Shapley values."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from comity.experiments.charts import legend_below, panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics
from comity.protocols.gradient_rewards import (
    cosine_contribution,
    cosine_gradient_shapley,
    gram,
    sampled_cosine_gradient_shapley,
)
from comity.randomness import derive, generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ERRORS = ("l1", "l2", "seconds")


@dataclass(frozen=True)
class Sizes:
    """Vectors to approximate for.

    Attributes:
        clients: Numbers N of vectors, at `dimension`.
        dimensions: Lengths D of them, for `few` vectors.
        dimension: D while N varies.
        few: N while D varies.
        permutations: What the sampling draws.
        runs: Runs to take means over.
        seed: Of the vectors and the permutations.
    """

    clients: tuple[int, ...]
    dimensions: tuple[int, ...]
    dimension: int = 1024
    few: int = 10
    permutations: int = 150
    runs: int = 10
    seed: int = 0

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return ("vectors drawn from a normal distribution",)


def compare(settings: Sizes, context: ExperimentContext) -> Metrics:
    """Errors and times of both approximations, each scaled to the sum of the exact values, 1: means over runs."""
    del context
    # Whatever runs first in a process is slow.
    _errors(replace(settings, runs=1), settings.clients[0], settings.dimension)
    return {
        "clients": list(settings.clients),
        "dimensions": list(settings.dimensions),
        "by_clients": [_errors(settings, clients, settings.dimension) for clients in settings.clients],
        "by_dimension": [_errors(settings, settings.few, dimension) for dimension in settings.dimensions],
    }


def _errors(settings: Sizes, clients: int, dimension: int) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, list[float]]] = {}
    for run in range(settings.runs):
        draws = generator(derive(settings.seed, "vectors", clients, dimension, run))
        vectors = torch.randn(clients, dimension, generator=draws)
        weights = torch.full((clients,), 1 / clients, dtype=torch.float64)
        exact = cosine_gradient_shapley(gram(vectors), weights)
        for name in ("cosine", "sampled"):
            began = time.perf_counter()
            products = gram(vectors)
            values = (
                cosine_contribution(products, weights)
                if name == "cosine"
                else sampled_cosine_gradient_shapley(products, weights, settings.permutations, draws)
            )
            seconds = time.perf_counter() - began
            error = values / values.sum() * exact.sum() - exact
            each = found.setdefault(name, {key: [] for key in _ERRORS})
            each["l1"].append(float(error.abs().sum()))
            each["l2"].append(float(error.norm()))
            each["seconds"].append(seconds)
    return {name: {key: fmean(values) for key, values in each.items()} for name, each in found.items()}


def _better(what: str) -> Any:
    def holds(metrics: Metrics) -> bool:
        rows = [*metrics["by_clients"], *metrics["by_dimension"]]
        return all(row["cosine"][what] < row["sampled"][what] for row in rows)

    return holds


def _gap_widens(metrics: Metrics) -> bool:
    gaps = [row["sampled"]["l1"] - row["cosine"]["l1"] for row in metrics["by_clients"]]
    return bool(gaps[-1] > gaps[0])


def draw(metrics: Metrics, figure: Figure) -> None:
    """Errors and time over N and over D."""
    for axes, (x, values, rows) in zip(
        panels(figure, ["D fixed", "N fixed"]),
        (("N", metrics["clients"], metrics["by_clients"]), ("D", metrics["dimensions"], metrics["by_dimension"])),
        strict=True,
    ):
        for way, style in (("cosine", "-"), ("sampled", "--")):
            for what, color in zip(_ERRORS, ("tab:blue", "tab:orange", "tab:green"), strict=True):
                axes.plot(values, [row[way][what] for row in rows], style, color=color, label=f"{way}, {what}")
        axes.set(xlabel=x, yscale="log", xscale="log" if x == "D" else "linear")
    legend_below(figure)


EXPERIMENTS = (
    Experiment(
        "gradient-rewards/fig-1",
        "Fig. 1: error and time of the cosine and of sampling, against exact values",
        {
            "smoke": Sizes((3, 5), (64, 128), runs=1),
            "digits": Sizes((4, 6, 8, 10, 12, 14), (64, 256, 1024, 4096, 16384)),
            "paper": Sizes((4, 6, 8, 10, 12, 14, 16, 18, 20), (2**6, 2**8, 2**10, 2**12, 2**14, 2**16, 2**18)),
        },
        "N up to 14 and D up to 16,384; nothing is replaced",
        compare,
        draw,
        (
            Claim("the cosine has the lower l1 error for every N and D", _better("l1")),
            Claim("the cosine has the lower l2 error for every N and D", _better("l2")),
            Claim("the cosine takes less time for every N and D", _better("seconds")),
            Claim("the gap in l1 error widens with the number of clients", _gap_widens),
        ),
    ),
)
"""What this module runs."""
