"""Where the paper's settings are run: clients with a pool each, in one process, labelled in turns by a simulated oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.classification import multiclass_jaccard_index

from comity.data import Dataset, Splits, load_data
from comity.data.config import DataConfig
from comity.experiments.datasets import Samples, normalization, title
from comity.experiments.reproduction import ExperimentContext, Metrics
from comity.models import build
from comity.protocols.peer_study.choices import IGNORED
from comity.protocols.peer_study.labelling import Client, Models, Plan, Stage, label_in_turns
from comity.protocols.peer_study.oracle import SimulatedOracle
from comity.protocols.peer_study.pool import TensorPool
from comity.protocols.peer_study.strategies import LearnedLoss, Strategy, Vaal, strategy
from comity.randomness import derive, generator

_BLOCK = 1000


@dataclass(frozen=True)
class Model:
    """A model by its name.

    Attributes:
        name: See `comity models`; or `strided`, see `strided`.
        hidden: Its option of this name, a width; 0 where it has none.
    """

    name: str
    hidden: int = 0

    def build(self, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        """The model with initial weights of a seed."""
        options = {"hidden": self.hidden} if self.hidden else {}
        own = {"strided": strided}
        return build(self.name, input_shape=shape, outputs=classes, options=options, seed=seed, own=own)


def strided(input_shape: tuple[int, ...], outputs: int, *, hidden: int = 8) -> nn.Module:
    """Two convolutions that halve the image each, of `hidden` channels and of twice as many, and a last layer.

    The smallest that learns MNIST from some hundred labels and takes no longer than minutes of a CPU in all runs of a figure.
    """
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, hidden, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden, 2 * hidden, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * hidden * -(-height // 4) * -(-width // 4), outputs),
    )


@dataclass(frozen=True)
class Setting:
    """What is labelled, by how many clients, and what learns from it.

    Attributes:
        samples: All of them; clients have equal shares.
        task_model: The teacher.
        student: A peer.
        plan: Labels of a client, and how models are trained on them.
        peers: How many a client has.
        clients: How many there are.
        protected: Share of each client's samples that is never labelled.
        scaled: By how much images are made smaller, by averaging.
        noise: Share of samples that the oracle mistakes.
        superclasses: Classes that it takes for one another.
        learning_steps: Of the strategies that train something of their own.
        draws_masks: Whether each pixel is labelled, where the samples come with a class each: with the class where there is
            ink, and with one more, the first, elsewhere.
    """

    samples: Samples
    task_model: Model
    student: Model
    plan: Plan
    peers: int = 2
    clients: int = 1
    protected: float = 0.9
    scaled: int = 1
    noise: float = 0.0
    superclasses: tuple[tuple[int, ...], ...] = ()
    learning_steps: int = 200
    draws_masks: bool = False

    @property
    def labels(self) -> list[int]:
        """Labels of all clients at each step."""
        plan = self.plan
        return [self.clients * (plan.initial + step * plan.budget) for step in range(plan.steps + 1)]


@dataclass(frozen=True)
class Line:
    """A curve of a figure.

    Attributes:
        name: What it is called.
        setting: What is labelled.
        strategy: By whom it is chosen.
    """

    name: str
    setting: Setting
    strategy: str = "peer_study"


@dataclass(frozen=True)
class Lines:
    """The curves of a figure.

    Attributes:
        lines: Each of them.
        seeds: One run each; curves of the same seed begin alike.
    """

    lines: tuple[Line, ...]
    seeds: tuple[int, ...] = field(default=(0, 1, 2, 3, 4))

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return tuple(dict.fromkeys(title(each.setting.samples.name) for each in self.lines))


def curves(settings: Lines, context: ExperimentContext) -> Metrics:
    """Test accuracy (of masks the mean IoU) by labels in percent, for each line: means, deviations, and by seed; and how often chance is beaten."""
    by_seed: dict[str, list[list[float]]] = {}
    for seed in settings.seeds:
        for line in settings.lines:
            by_seed.setdefault(line.name, []).append(curve(line, seed, context))
    return {"labels": {line.name: line.setting.labels for line in settings.lines}, **summary(by_seed)}


def summary(by_seed: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Curves by seed as a figure shows them."""
    over_curve = {name: [fmean(run) for run in runs] for name, runs in by_seed.items()}
    found: dict[str, Any] = {
        "curves": {name: [fmean(step) for step in zip(*runs, strict=True)] for name, runs in by_seed.items()},
        "deviations": {name: [_spread(step) for step in zip(*runs, strict=True)] for name, runs in by_seed.items()},
        "final": {name: fmean(run[-1] for run in runs) for name, runs in by_seed.items()},
        "over_curve": {name: fmean(means) for name, means in over_curve.items()},
        "by_seed": {name: [list(run) for run in runs] for name, runs in by_seed.items()},
    }
    chance = over_curve.get("random")
    if chance is not None:
        found["better_than_random"] = {
            name: sum(mine > other for mine, other in zip(means, chance, strict=True))
            for name, means in over_curve.items()
            if name != "random"
        }
    return found


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def curve(line: Line, seed: int, context: ExperimentContext) -> list[float]:
    """Test accuracy, or mean IoU, in percent after each step; measured once for all figures."""
    found: Any = context.once(_run, _Run(line.setting, line.strategy, seed))
    accuracy: list[float] = found["accuracy"]
    return accuracy


@dataclass(frozen=True)
class _Run:
    setting: Setting
    strategy: str
    seed: int


def _run(run: _Run, context: ExperimentContext) -> Metrics:
    setting = run.setting
    context.say(f"  {run.strategy}, {setting.samples.name}, seed {run.seed}")
    lab = Cohort.of(setting, run.seed, context)
    stages = lab.stages(asked(run.strategy, setting))
    return {"accuracy": [100 * lab.score(stage.task_model) for stage in stages]}


def asked(name: str, setting: Setting) -> Strategy:
    """The strategy of a name, with the setting's steps where it trains something of its own."""
    found = strategy(name)
    return replace(found, steps=setting.learning_steps) if isinstance(found, LearnedLoss | Vaal) else found


@dataclass(frozen=True)
class Cohort:
    """Clients with their pools, and samples to test on.

    Attributes:
        setting: What they were made by.
        seed: Of everything.
        clients: The clients.
        models: What they train.
        test: Inputs and labels.
    """

    setting: Setting
    seed: int
    clients: tuple[Client, ...]
    models: Models
    test: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, setting: Setting, seed: int, context: ExperimentContext) -> Cohort:
        """The clients of a setting, which depend on the seed alone, whatever is asked of them."""
        data: Any = context.once(_prepared, _Prepared(setting.samples, setting.scaled))
        splits: Splits = data["splits"]
        classes = splits.train.outputs + setting.draws_masks
        inputs, labels = _read(splits.train, setting)
        order = torch.randperm(len(labels), generator=generator(derive(seed, "clients")))
        clients = []
        for index, own in enumerate(order.chunk(setting.clients)):
            draws = generator(derive(seed, "protected", index))
            protected = torch.randperm(len(own), generator=draws) < round(setting.protected * len(own))
            oracle = SimulatedOracle(
                labels[own],
                classes,
                noise=setting.noise,
                superclasses=setting.superclasses or None,
                seed=derive(seed, "oracle", index),
            )
            clients.append(Client(TensorPool(inputs[own]), protected, oracle))
        shape = tuple(inputs.shape[1:])

        def model(made: Model) -> Any:
            # Drawn from the seed that the turns set, so that each student has weights of its own.
            return lambda: made.build(shape, classes, int(torch.randint(2**62, ())))

        models = Models(model(setting.task_model), model(setting.student), classes, setting.peers)
        return cls(setting, seed, tuple(clients), models, _read(splits.split("test"), setting))

    @torch.inference_mode()
    def score(self, model: nn.Module) -> float:
        """The share of test samples whose class a model says; of masks the mean IoU."""
        inputs, labels = self.test
        said = torch.cat([model(some).argmax(dim=1) for some in inputs.split(_BLOCK)])
        if labels.ndim == 1:
            return float((said == labels).double().mean())
        return float(multiclass_jaccard_index(said, labels, num_classes=self.models.classes, ignore_index=IGNORED))

    def stages(self, strategy: Strategy) -> list[Stage]:
        """Labelling in turns by one strategy."""
        return label_in_turns(self.clients, self.models, strategy, self.setting.plan, self.seed)


@dataclass(frozen=True)
class _Prepared:
    samples: Samples
    scaled: int


def _prepared(wanted: _Prepared, context: ExperimentContext) -> dict[str, Any]:
    return {"splits": load_data(DataConfig.model_validate(context.datasets.section(wanted.samples)))}


def _read(data: Dataset, setting: Setting) -> tuple[Tensor, Tensor]:
    """Samples as models take them, and their labels."""
    known = normalization(setting.samples.name)
    inputs, labels = data.prepare(data.all_inputs, known["mean"], known["std"]), data.labels.long()
    if setting.scaled > 1:
        inputs = avg_pool2d(inputs, setting.scaled)
    if setting.draws_masks:
        ink = inputs[:, 0] > inputs[:, 0].mean()
        labels = torch.where(ink, labels[:, None, None] + 1, 0)
    return inputs, labels
