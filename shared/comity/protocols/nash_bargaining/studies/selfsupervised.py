"""Table 3 of Shamsian et al. 2023: few labels, and two tasks that need none: which way is up, and which pictures are one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from comity.data import DataConfig, load_data
from comity.experiments.charts import legend_under, panels
from comity.experiments.datasets import Samples, title
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics, Printed
from comity.protocols.nash_bargaining.studies.wide import wide_resnet
from comity.randomness import derive, generator, seeded
from comity.training.weighting import WeightedGradients, weighting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TURNS = 4
_LEARN_EVERY = 25
_METHODS = ("single-task", "linear", "nash-mtl", "auxinash")


@dataclass(frozen=True)
class FewLabels:
    """Pictures of which some have labels.

    Attributes:
        samples: Pictures; labels of most of them are not used.
        labelled: How many labels there are, a training each.
        methods: Of weighting.
        seeds: Trainings by each method.
        steps: Of a training.
        batch_size: Pictures of each task in a step.
        learning_rate: Of Adam, falling to 0 as half a cosine.
        model: The trunk: `wrn-28-2`, or `small` for three convolutions.
        main_power: The main task's bargaining power.
    """

    samples: Samples
    labelled: tuple[int, ...] = (5000, 10_000)
    methods: tuple[str, ...] = _METHODS
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 3e-3
    model: Literal["wrn-28-2", "small"] = "small"
    main_power: float = 0.4

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return (title(self.samples.name),)


class Tasks(nn.Module):
    """A trunk, and a head for each task: classes, turns, and a place for each picture.

    Args:
        input_shape: Of a picture.
        classes: How many there are.
        model: The trunk, `wrn-28-2` or `small`.
    """

    def __init__(self, input_shape: tuple[int, ...], classes: int, model: Literal["wrn-28-2", "small"]) -> None:
        super().__init__()
        if model == "small":
            layers: list[nn.Module] = []
            width = input_shape[0]
            for wider, stride in ((16, 1), (32, 2), (64, 2)):
                layers += [nn.Conv2d(width, wider, 3, stride, 1), nn.GroupNorm(4, wider), nn.ReLU()]
                width = wider
            self.trunk: nn.Module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
            features = 4 * width
        else:
            self.trunk, features = wide_resnet(input_shape[0])
        self.heads = nn.ModuleList(nn.Linear(features, outputs) for outputs in (classes, _TURNS, 64))

    def losses(self, labelled: tuple[Tensor, Tensor], pictures: Tensor, draws: torch.Generator) -> list[Tensor]:
        """Of the classes, of turns that are drawn, and of pictures that are changed twice; one graph, one forward pass."""
        turns = torch.randint(_TURNS, (len(pictures),), generator=draws)
        turned = torch.stack([each.rot90(int(turn), (1, 2)) for each, turn in zip(pictures, turns, strict=True)])
        twice = [changed(pictures, draws) for _ in range(2)]
        sizes = [len(labelled[0]), len(turned), 2 * len(pictures)]
        features = self.trunk(torch.cat([changed(labelled[0], draws), turned, *twice])).split(sizes)
        classes, direction, places = (head(each) for head, each in zip(self.heads, features, strict=True))
        return [
            functional.cross_entropy(classes, labelled[1]),
            functional.cross_entropy(direction, turns),
            exemplar_loss(*functional.normalize(places, dim=1).chunk(2)),
        ]


def exemplar_loss(one: Tensor, other: Tensor) -> Tensor:
    """Two changed copies of a picture are to be nearer than the nearest copy of another (batch-hard triplets, soft margin)."""
    distances = torch.cdist(one, other)
    same = torch.eye(len(one), dtype=torch.bool)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    return functional.softplus(distances.diagonal() - nearest).mean()


def changed(pictures: Tensor, draws: torch.Generator) -> Tensor:
    """Pictures shifted by up to an eighth, some mirrored, and brighter or darker."""
    count, _, height, width = pictures.shape
    room = max(height // 8, 1)
    padded = functional.pad(pictures, (room,) * 4)
    at = torch.randint(2 * room + 1, (count, 2), generator=draws).tolist()
    moved = torch.stack([padded[each, :, y : y + height, x : x + width] for each, (y, x) in enumerate(at)])
    mirrored = torch.rand(count, 1, 1, 1, generator=draws) < 0.5
    light = 0.8 + 0.4 * torch.rand(count, 1, 1, 1, generator=draws)
    return torch.where(mirrored, moved.flip(3), moved) * light


def measure(settings: FewLabels, context: ExperimentContext) -> Metrics:
    """Test accuracy by number of labels and method, in the mean over the seeds, and each seed's; powers at the end."""
    section = context.datasets.section(settings.samples)
    splits = load_data(DataConfig(**{name: value for name, value in section.items() if value is not None}))
    tested = splits.train if splits.test is None else splits.test
    pictures, labels = splits.train.all_inputs.float() * splits.train.scale, splits.train.labels
    test = tested.all_inputs.float() * tested.scale, tested.labels
    found: dict[str, Any] = {}
    for count in settings.labelled:
        runs: dict[str, list[float]] = {method: [] for method in settings.methods}
        powers: list[list[float]] = []
        for seed in settings.seeds:
            drawn = torch.randperm(len(labels), generator=generator(derive(seed, "labelled")))[:count]
            for method in settings.methods:
                accuracy, power = trained(settings, method, (pictures, labels, drawn), test, seed)
                runs[method].append(accuracy)
                powers += [power] if power else []
                context.say(f"  {count} labels, {method}, seed {seed}: {accuracy:.3f}")
        found[f"{count} labels"] = {method: 100 * fmean(values) for method, values in runs.items()} | {
            "by seed": runs,
            "powers": powers,
        }
    return found


def trained(
    settings: FewLabels,
    method: str,
    train: tuple[Tensor, Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    seed: int,
) -> tuple[float, list[float]]:
    """The test accuracy of a training, and the powers it ends with, where it has some that are learned.

    Args:
        settings: How.
        method: Of weighting.
        train: Pictures, labels, and the places of those whose labels are used.
        test: Pictures and labels.
        seed: Decides weights and batches.
    """
    pictures, labels, labelled = train
    classes = int(max(labels.max(), test[1].max())) + 1
    with seeded(derive(seed, "few labels")):
        model = Tasks(tuple(pictures.shape[1:]), classes, settings.model)
    options = {"main_power": settings.main_power} if method == "auxinash" else {}
    weigher = weighting(method, 3, **options)
    trunk = [*model.trunk.parameters()]
    gradients = WeightedGradients(weigher, trunk, [[*head.parameters()] for head in model.heads], norm=None)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    draws = generator(derive(seed, "batches of few labels"))

    def batch() -> tuple[Tensor, Tensor]:
        at = labelled[torch.randint(len(labelled), (settings.batch_size,), generator=draws)]
        return pictures[at], labels[at]

    for step in range(1, settings.steps + 1):
        any_of_them = pictures[torch.randint(len(pictures), (settings.batch_size,), generator=draws)]
        optimizer.zero_grad()
        gradients.backward(model.losses(batch(), any_of_them, draws))
        gradients.combine()
        if weigher.learns and not step % _LEARN_EVERY:
            inputs, wanted = batch()
            loss = functional.cross_entropy(model.heads[0](model.trunk(inputs)), wanted)
            gradients.update(torch.autograd.grad(loss, trunk))
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        right = [model.heads[0](model.trunk(block)).argmax(1) for block in test[0].split(500)]
    state = weigher.state_dict()
    return float((torch.cat(right) == test[1]).double().mean()), state["powers"].tolist() if weigher.learns else []


def _better(metrics: Metrics, method: str, than: str) -> bool | None:
    runs = [each for each in metrics.values() if method in each and than in each]
    return all(each[method] > each[than] for each in runs) if runs else None


def draw(metrics: Metrics, figure: Figure) -> None:
    """Accuracies of the methods, a group for each number of labels."""
    (axes,) = panels(figure, ["test accuracy of the main task, %"])
    methods = [name for name in next(iter(metrics.values())) if name not in ("by seed", "powers")]
    for at, method in enumerate(methods):
        places = [group + 0.8 * at / len(methods) for group in range(len(metrics))]
        axes.bar(places, [each[method] for each in metrics.values()], 0.7 / len(methods), label=method)
        for place, each in zip(places, metrics.values(), strict=True):
            axes.plot(
                [place] * len(each["by seed"][method]), [100 * one for one in each["by seed"][method]], "k.", ms=3
            )
    axes.set_xticks([group + 0.3 for group in range(len(metrics))], [*metrics])
    low = min(100 * one for each in metrics.values() for runs in each["by seed"].values() for one in runs)
    axes.set_ylim(bottom=max(0.0, low - 5))
    legend_under(axes)


def _printed(labels: int, numbers: Mapping[str, float]) -> list[Printed]:
    key = f"{labels} labels"
    return [Printed(f"{method}, {key}", (key, method), value) for method, value in numbers.items()]


_PAPER = {
    5000: {"single-task": 79.3, "nash-mtl": 86.7, "auxinash": 87.0},
    10_000: {"single-task": 83.8, "nash-mtl": 88.7, "auxinash": 88.8},
}
EXPERIMENTS = (
    Experiment(
        "nash-bargaining/table-3",
        "Table 3: CIFAR10-SSL: few labels beside two tasks that need none",
        {
            "smoke": FewLabels(Samples("digits"), (100,), seeds=(0,), steps=3, batch_size=8),
            "digits": FewLabels(Samples("digits"), (100, 300), steps=150),
            "small": FewLabels(Samples("cifar10", 500, 200), (1000,), seeds=(0, 1), steps=300),
            "paper": FewLabels(Samples("cifar10"), steps=50_000, batch_size=256, learning_rate=1e-3, model="wrn-28-2"),
        },
        "handwritten digits (scikit-learn), and three convolutions for a WRN-28-2, trained for fewer steps",
        measure,
        draw,
        (
            Claim(
                "AuxiNash is better than the main task alone", partial(_better, method="auxinash", than="single-task")
            ),
            Claim("AuxiNash is better than Nash-MTL", partial(_better, method="auxinash", than="nash-mtl")),
        ),
        printed=[each for labels, numbers in _PAPER.items() for each in _printed(labels, numbers)],
        small="5,000 pictures of CIFAR-10 of which 1,000 have labels, 2,000 to test, and three convolutions for a WRN-28-2,"
        " trained for 300 steps of 32",
    ),
)
"""What this module runs."""
