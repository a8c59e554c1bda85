"""Figures 1 and 2 of Shamsian et al. 2023: update directions, and a regression in two dimensions with a harmful task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from comity.experiments.charts import curves, legend_under, panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics
from comity.protocols.nash_bargaining.algorithm import bargain, gram_matrix, power_gradient
from comity.protocols.nash_bargaining.powers import initial_powers, updated_powers
from comity.randomness import derive, generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TASKS = ("main", "helpful", "harmful")


@dataclass(frozen=True)
class Directions:
    """Gradients of two tasks, and powers to bargain with.

    Attributes:
        gradients: One of each task, of different length.
        powers: The first task's.
    """

    gradients: tuple[tuple[float, float], ...] = ((1.0, 0.1), (-0.6, 2.0))
    powers: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return ("two gradients in the plane",)


def directions(settings: Directions, context: ExperimentContext) -> Metrics:
    """Updates of length 1 for each power, of equal powers (Nash-MTL), and of the mean gradient."""
    del context
    gradients = torch.tensor(settings.gradients, dtype=torch.float64)
    gram = gram_matrix(gradients)
    unit = gradients / gradients.norm(dim=1, keepdim=True)
    found: dict[str, Any] = {"gradients": gradients.tolist(), "updates": {}}
    updates = {f"p = {power:g}": bargain(gram, [power, 1 - power]).alpha @ gradients for power in settings.powers}
    mean = gradients.mean(0)
    updates |= {"Nash-MTL": bargain(gram, [0.5, 0.5]).alpha @ gradients, "mean": mean / mean.norm()}
    for name, update in updates.items():
        found["updates"][name] = {"direction": update.tolist(), "cosines": (unit @ update).tolist()}
    return found


def draw_directions(metrics: Metrics, figure: Figure) -> None:
    """The gradients, made of length 1, and the updates."""
    (axes,) = panels(figure, ["gradients (black), and updates of length 1"])
    for gradient in metrics["gradients"]:
        length = math.hypot(*gradient)
        axes.plot([0, gradient[0] / length], [0, gradient[1] / length], color="black")
    for name, update in metrics["updates"].items():
        style = "--" if name in {"Nash-MTL", "mean"} else "-"
        axes.plot([0, update["direction"][0]], [0, update["direction"][1]], style, label=name)
    axes.set_aspect("equal")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))


def _bargained(metrics: Metrics) -> list[list[float]]:
    return [each["cosines"] for name, each in metrics["updates"].items() if name.startswith("p =")]


@dataclass(frozen=True)
class Illustration:
    """The regression.

    Attributes:
        seeds: All at once.
        samples: To train on.
        epochs: Passes over them.
        batch_size: Samples in a step.
        learning_rate: Of Adam.
        noise: Standard deviation of each task's targets.
        ridges: Each is tried; see `bargain`.
        main_power: The main task's power, which stays.
        power_every: Steps between two updates of the powers.
        power_rate: η of an update.
    """

    seeds: tuple[int, ...] = tuple(range(10))
    samples: int = 1000
    epochs: int = 1000
    batch_size: int = 256
    learning_rate: float = 1e-2
    noise: tuple[float, ...] = (5.0, 0.25, 0.25)
    ridges: tuple[float, ...] = (0.0, 1e-2)
    main_power: float = 1 / 3
    power_every: int = 25
    power_rate: float = 0.1

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return ("points drawn from a normal distribution",)


_BEST = torch.tensor([1.0, 1.0], dtype=torch.float64)
_HARMFUL = torch.tensor([-1.0, -4.0], dtype=torch.float64)


def regress(settings: Illustration, context: ExperimentContext) -> Metrics:
    """Distances to the optimum, by way and seed, and the powers on the way."""
    inputs, targets = _drawn(settings)
    alone = torch.linalg.lstsq(inputs, targets[:, 0].unsqueeze(-1)).solution.squeeze(-1)
    found: dict[str, Any] = {"distance": {"main task alone": _distances(alone)}, "powers": {}, "at": {}}
    found["at"]["main task alone"] = alone.tolist()
    for ridge in settings.ridges:
        for way, rate in (("AuxiNash", settings.power_rate), ("equal powers", 0.0)):
            name = f"{way}, ridge {ridge:g}"
            context.say(f"  {name}")
            weights, powers = _trained(settings, inputs, targets, ridge, rate)
            found["distance"][name] = _distances(weights)
            found["at"][name] = weights.tolist()
            found["powers"][name] = powers
    found["mean"] = {name: fmean(each) for name, each in found["distance"].items()}
    return found


def _drawn(settings: Illustration) -> tuple[Tensor, Tensor]:
    inputs, targets = [], []
    for seed in settings.seeds:
        draws = generator(derive(seed, "illustration"))
        points = torch.randn(settings.samples, 2, dtype=torch.float64, generator=draws)
        noise = torch.randn(3, settings.samples, dtype=torch.float64, generator=draws)
        clean = torch.stack([points @ _BEST, points @ _BEST, points @ _HARMFUL])
        inputs.append(points)
        targets.append(clean + torch.tensor(settings.noise, dtype=torch.float64)[:, None] * noise)
    return torch.stack(inputs), torch.stack(targets)


def _trained(
    settings: Illustration, inputs: Tensor, targets: Tensor, ridge: float, rate: float
) -> tuple[Tensor, list[list[float]]]:
    """The weights of all seeds at the end, and the powers in their mean, after each update."""
    seeds = len(settings.seeds)
    weights = nn.Parameter(torch.zeros(seeds, 2, dtype=torch.float64))
    optimizer = torch.optim.Adam([weights], lr=settings.learning_rate)
    powers = initial_powers(2, settings.main_power).repeat(seeds, 1)
    kept = [powers.mean(0).tolist()]
    draws = generator(derive(0, "illustration's batches"))
    steps = settings.epochs * math.ceil(settings.samples / settings.batch_size)
    for step in range(1, steps + 1):
        at = torch.randint(settings.samples, (settings.batch_size,), generator=draws)
        gradients = _gradients(weights.detach(), inputs[:, at], targets[:, :, at])
        gram = gram_matrix(gradients)
        alpha = bargain(gram, powers, ridge).alpha
        weights.grad = (alpha.unsqueeze(1) @ gradients).squeeze(1)
        optimizer.step()
        if rate and not step % settings.power_every:
            # Another batch of the training samples.
            at = torch.randint(settings.samples, (settings.batch_size,), generator=draws)
            main = _gradients(weights.detach(), inputs[:, at], targets[:, :, at])[:, 0]
            vector = -(gradients @ main.unsqueeze(-1)).squeeze(-1) / main.norm(dim=-1, keepdim=True)
            found = power_gradient(gram, powers, alpha, vector, ridge)
            pairs = zip(powers, found, strict=True)
            powers = torch.stack([updated_powers(power, each, rate, 1e-4) for power, each in pairs])
            kept.append(powers.mean(0).tolist())
    return weights.detach(), kept


def _gradients(
    weights: Float[Tensor, "seeds 2"], inputs: Float[Tensor, "seeds batch 2"], targets: Float[Tensor, "seeds 3 batch"]
) -> Float[Tensor, "seeds 3 2"]:
    """Of the mean squared error of each task."""
    errors = (inputs @ weights.unsqueeze(-1)).squeeze(-1).unsqueeze(1) - targets
    return 2 * errors @ inputs / inputs.shape[1]


def _distances(weights: Tensor) -> list[float]:
    return [float(each) for each in (weights - _BEST).norm(dim=-1)]


def _with_ridge(metrics: Mapping[str, Any]) -> str:
    names: list[str] = [name for name in metrics["powers"] if name.startswith("AuxiNash")]
    return names[-1]


def _ignores_the_harmful(metrics: Metrics) -> bool:
    main, helpful, harmful = metrics["powers"][_with_ridge(metrics)][-1]
    del main
    return bool(harmful < 0.5 * helpful)


def _nearer(metrics: Metrics) -> bool:
    means: Mapping[str, float] = metrics["mean"]
    return bool(means[_with_ridge(metrics)] < means["main task alone"])


def draw_regression(metrics: Metrics, figure: Figure) -> None:
    """The powers over the updates, and where the weights end."""
    left, right = panels(figure, ["bargaining power, mean over seeds", "weights at the end, by seed"])
    lines = metrics["powers"][_with_ridge(metrics)]
    curves(left, {task: [each[at] for each in lines] for at, task in enumerate(_TASKS)}, x="update of the powers")
    for (name, ends), mark in zip(metrics["at"].items(), "sxo+^", strict=False):
        right.plot([each[0] for each in ends], [each[1] for each in ends], mark, markersize=4, label=name)
    right.plot([1.0], [1.0], "k*", label="optimum")
    legend_under(right)


EXPERIMENTS = (
    Experiment(
        "nash-bargaining/fig-1",
        "Fig. 1: update directions of two tasks, by bargaining power",
        {"smoke": Directions(powers=(0.25, 0.75)), "digits": Directions(), "paper": Directions()},
        "two gradients of our own",
        directions,
        draw_directions,
        (
            Claim(
                "the more power a task has, the nearer is the update to its gradient",
                lambda metrics: (
                    [each[0] for each in _bargained(metrics)] == sorted(each[0] for each in _bargained(metrics))
                ),
            ),
            Claim(
                "no task is made worse, whoever has the power",
                lambda metrics: all(cosine > 0 for each in _bargained(metrics) for cosine in each),
            ),
        ),
    ),
    Experiment(
        "nash-bargaining/fig-2",
        "Fig. 2: a regression with a helpful and a harmful auxiliary task",
        {
            "smoke": Illustration(seeds=(0,), epochs=20),
            "digits": Illustration(),
            "paper": Illustration(),
        },
        "nothing is replaced: the game is the paper's",
        regress,
        draw_regression,
        (
            Claim("the harmful task ends with less than half of the power of the helpful one", _ignores_the_harmful),
            Claim("in the mean of the seeds, it ends nearer to the optimum than the main task alone", _nearer),
        ),
    ),
)
"""What this module runs."""
