"""Figure 3 of Shamsian et al. 2023: two digits in a picture, a task each, and how powers steer between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from comity.data import DataConfig, Dataset, load_data
from comity.experiments.charts import legend_under, panels
from comity.experiments.datasets import Samples, title
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics
from comity.randomness import derive, generator, seeded
from comity.training.weighting import WeightedGradients, weighting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_APART = 3.0
"""Of the paper's front: how much farther its ends are apart than those of symmetric bargaining."""


@dataclass(frozen=True)
class Pairs:
    """Pictures of two digits, and trainings on them.

    Attributes:
        samples: Single digits.
        shift: Pixels by which the second digit is farther right and down than the first.
        train: Pairs to train on.
        test: Pairs to test on.
        powers: Of the first task, one training each.
        seeds: Trainings by Nash-MTL, one each.
        steps: Of a training.
        batch_size: Samples in a step.
        learning_rate: Of Adam, falling to 0 as half a cosine.
        width: Channels of the first convolution.
    """

    samples: Samples
    shift: int
    train: int
    test: int
    powers: tuple[float, ...] = (0.01, 0.1, 0.2, 0.25, 0.4, 0.5, 0.6, 0.75, 0.8, 0.9, 0.99)
    seeds: tuple[int, ...] = tuple(range(11))
    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 3e-3
    width: int = 10

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return (title(self.samples.name),)


class LeNet(nn.Module):
    """A LeNet with a head for each of several tasks, as Sener and Koltun 2018 have it for these pictures.

    Args:
        side: Of a picture.
        width: Channels of the first convolution.
        heads: How many tasks there are.
    """

    def __init__(self, side: int, width: int, heads: int = 2) -> None:
        super().__init__()
        left = ((side - 4) // 2 - 4) // 2 if side >= 20 else (side - 4) // 2
        layers: list[nn.Module] = [nn.Conv2d(1, width, 5), nn.ReLU(), nn.MaxPool2d(2)]
        if side >= 20:
            layers += [nn.Conv2d(width, 2 * width, 5), nn.ReLU(), nn.MaxPool2d(2)]
            width *= 2
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * left * left, 50), nn.ReLU())
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10)) for _ in range(heads))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """The scores of each task's classes."""
        features = self.trunk(inputs)
        return [head(features) for head in self.heads]


def pairs(digits: Dataset, count: int, shift: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of two digits that are drawn, the first above on the left, and the classes of both.

    Where they overlap, the brighter pixel is seen.
    """
    draws = generator(derive(seed, "pairs of digits"))
    at = torch.randint(len(digits), (2, count), generator=draws)
    images = digits.all_inputs.float() * digits.scale
    _, _, height, width = images.shape
    pictures = torch.zeros(count, 1, height + shift, width + shift)
    pictures[:, :, :height, :width] = images[at[0]]
    pictures[:, :, shift:, shift:] = torch.maximum(pictures[:, :, shift:, shift:], images[at[1]])
    return pictures, digits.labels[at].T


def measure(settings: Pairs, context: ExperimentContext) -> Metrics:
    """Test accuracies of both tasks, by power, and of Nash-MTL, by seed."""
    section = context.datasets.section(settings.samples)
    splits = load_data(DataConfig(**{name: value for name, value in section.items() if value is not None}))
    tested = splits.train if splits.test is None else splits.test
    train = pairs(splits.train, settings.train, settings.shift, 0)
    test = pairs(tested, settings.test, settings.shift, 1)
    found: dict[str, Any] = {"auxinash": {}, "nash-mtl": {}}
    for power in settings.powers:
        found["auxinash"][f"{power:g}"] = trained(settings, train, test, [power, 1 - power], 0)
        context.say(f"  p = {power:g}: {_shown(found['auxinash'][f'{power:g}'])}")
    for seed in settings.seeds:
        found["nash-mtl"][str(seed)] = trained(settings, train, test, [0.5, 0.5], seed)
        context.say(f"  Nash-MTL, seed {seed}: {_shown(found['nash-mtl'][str(seed)])}")
    return found


def trained(
    settings: Pairs, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], powers: list[float], seed: int
) -> list[float]:
    """The test accuracies of a model that is trained with powers that stay."""
    with seeded(derive(seed, "LeNet")):
        model = LeNet(train[0].shape[-1], settings.width)
    heads = [[*head.parameters()] for head in model.heads]
    method = weighting("auxinash", 2, powers=powers, rate=0.0)
    gradients = WeightedGradients(method, [*model.trunk.parameters()], heads, norm=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    draws = generator(derive(seed, "batches of pairs"))
    for _ in range(settings.steps):
        at = torch.randint(len(train[0]), (settings.batch_size,), generator=draws)
        optimizer.zero_grad()
        said = model(train[0][at])
        gradients.backward([functional.cross_entropy(each, train[1][at, task]) for task, each in enumerate(said)])
        gradients.combine()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        parts = [model(block) for block in test[0].split(500)]
    right = [torch.cat([part[task] for part in parts]).argmax(1) == test[1][:, task] for task in range(2)]
    return [float(each.double().mean()) for each in right]


def _shown(accuracies: Sequence[float]) -> str:
    return ", ".join(f"{each:.3f}" for each in accuracies)


def _spread(runs: Mapping[str, Sequence[float]]) -> float:
    """How far the runs lie apart along the front: of the first task's accuracy less the second's."""
    gaps = [one - other for one, other in runs.values()]
    return max(gaps) - min(gaps)


def _follows(metrics: Metrics) -> bool:
    runs = metrics["auxinash"]
    powers = [float(each) for each in runs]
    gaps = [one - other for one, other in runs.values()]
    if not pstdev(powers) or not pstdev(gaps):
        return False
    mean, middle = fmean(powers), fmean(gaps)
    together = fmean((power - mean) * (gap - middle) for power, gap in zip(powers, gaps, strict=True))
    return bool(together / (pstdev(powers) * pstdev(gaps)) > 0.8 and math.isfinite(together))


def draw(metrics: Metrics, figure: Figure) -> None:
    """Both tasks' accuracies, a point a training."""
    (axes,) = panels(figure, ["test accuracy of both tasks"])
    for name, label, mark in (("nash-mtl", "Nash-MTL, by seed", "s"), ("auxinash", "AuxiNash, by power", "o-")):
        runs = [*metrics[name].values()]
        axes.plot([each[0] for each in runs], [each[1] for each in runs], mark, markersize=4, label=label)
    for power, (one, other) in metrics["auxinash"].items():
        axes.annotate(power, (one, other), fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.set(xlabel="first digit", ylabel="second digit")
    legend_under(axes)


_DIGITS = Samples("digits")
_MNIST = Samples("mnist", 600, 200)

EXPERIMENTS = (
    Experiment(
        "nash-bargaining/fig-3",
        "Fig. 3: task preferences: two overlapping digits, eleven powers beside eleven seeds of Nash-MTL",
        {
            "smoke": Pairs(_DIGITS, 3, 100, 50, powers=(0.1, 0.9), seeds=(0, 1), steps=3),
            "digits": Pairs(_DIGITS, 3, 4000, 2000),
            "small": Pairs(_MNIST, 8, 12_000, 4000, steps=200, learning_rate=2e-3),
            "paper": Pairs(Samples("mnist"), 8, 120_000, 20_000, steps=46_900, batch_size=256, learning_rate=1e-3),
        },
        "pairs of handwritten digits (scikit-learn), overlapping, and a smaller LeNet, trained for fewer steps",
        measure,
        draw,
        (
            Claim("the more power a task has, the better it does beside the other", _follows),
            Claim(
                "powers reach more of the front than seeds of symmetric bargaining do: three times as much",
                lambda metrics: bool(_spread(metrics["auxinash"]) > _APART * _spread(metrics["nash-mtl"])),
            ),
        ),
    ),
)
"""What this module runs."""
