"""Tables 1 and 2: what strategies choose with, in parameters, and how long they take, forward and selection apart."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from comity.experiments.charts import legend_under, panels
from comity.experiments.datasets import title
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics, Printed
from comity.models import build
from comity.protocols.peer_study.labelling import candidates_of
from comity.protocols.peer_study.strategies import LearnedLoss, Question, Vaal, choose
from comity.protocols.peer_study.students import Labelled, PeerStudents
from comity.protocols.peer_study.studies.lab import Cohort, Setting, asked
from comity.protocols.peer_study.studies.sizes import SENSITIVE, STRATEGY_NAMES
from comity.protocols.peer_study.studies.timing import Stopwatch
from comity.randomness import derive, seeded

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Counted:
    """Models whose parameters are counted.

    Attributes:
        classification: The task model's name, and a student's, for images of 32x32 in 10 classes.
        segmentation: The same for street scenes in 19 classes.
        peers: How many students there are.
    """

    classification: tuple[str, str] = ("resnet18-cifar", "resnet8")
    segmentation: tuple[str, str] = (
        "torchvision:deeplabv3_mobilenet_v3_large",
        "torchvision:lraspp_mobilenet_v3_large",
    )
    peers: int = 2

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return ("no data",)


def count(settings: Counted, context: ExperimentContext) -> Metrics:
    """Millions of parameters that each strategy chooses with."""
    del context
    found: dict[str, dict[str, float]] = {}
    for kind, names, shape, outputs in (
        ("classification", settings.classification, (3, 32, 32), 10),
        ("segmentation", settings.segmentation, (3, 64, 128), 19),
    ):
        task, student = (
            build(name, input_shape=shape, outputs=outputs, options={}, seed=0, device="meta") for name in names
        )
        own = _parameters(task)
        table = dict.fromkeys(("entropy", "core_set"), own)
        if kind == "classification":
            table |= dict.fromkeys(("badge", "alfa_mix"), own)
            last = [each for each in task.modules() if isinstance(each, nn.Linear)][-1]
            table["ll4al"] = own + _parameters(LearnedLoss().predictor(last.in_features))
            table["vaal"] = sum(map(_parameters, Vaal().models(torch.Size(shape).numel())))
        found[kind] = {**table, "peer_study": settings.peers * _parameters(student)}
    return {"millions": {kind: {name: each / 1e6 for name, each in table.items()} for kind, table in found.items()}}


def _parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def draw_counts(metrics: Metrics, figure: Figure) -> None:
    """Bars by strategy."""
    kinds = metrics["millions"]
    for axes, table in zip(panels(figure, [f"{kind}, millions" for kind in kinds]), kinds.values(), strict=True):
        axes.barh(list(table), list(table.values()))
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=7)


def _lightest(metrics: Metrics) -> bool:
    table: Mapping[str, float] = metrics["millions"]["classification"]
    return table["peer_study"] <= min(table.values())


@dataclass(frozen=True)
class Timed:
    """A selection that is timed.

    Attributes:
        setting: Its samples and models.
        repeats: How often.
    """

    setting: Setting
    repeats: int = 5

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return (title(self.setting.samples.name),)


def take_time(settings: Timed, context: ExperimentContext) -> Metrics:
    """Seconds of the models' forward passes over pool and labelled samples, and of all else, by strategy."""
    setting = replace(settings.setting, clients=1)
    lab = Cohort.of(setting, 0, context)
    (client,) = lab.clients
    nothing = Labelled(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    free = candidates_of(client, nothing)[: setting.plan.initial]
    labelled = nothing.also(free, client.oracle.label(free))
    with seeded(derive(0, "timed")):
        task_model = lab.models.task_model().eval()
    students = PeerStudents(lab.models.student, setting.peers, 0, setting.plan.fitting)
    question = Question(
        client.pool,
        candidates_of(client, labelled),
        labelled,
        setting.plan.budget,
        lab.models.classes,
        task_model,
        students=students,
    )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STRATEGY_NAMES}
    for repeat in range(1 + settings.repeats):
        for name, times in found.items():
            with Stopwatch(task_model, students) as forward:
                began = time.perf_counter()
                choose(asked(name, setting), question)
                whole = time.perf_counter() - began
            # The first warms up.
            if repeat:
                times.append((forward.seconds, whole - forward.seconds))
    return {
        "candidates": len(question.candidates),
        "budget": question.budget,
        "forward": {name: median(each for each, _ in times) for name, times in found.items()},
        "selection": {name: median(each for _, each in times) for name, times in found.items()},
    }


def draw_times(metrics: Metrics, figure: Figure) -> None:
    """Bars by strategy, forward and selection one after the other."""
    (axes,) = panels(figure, [f"seconds to choose {metrics['budget']} of {metrics['candidates']:,}"])
    names = list(metrics["forward"])
    forward = list(metrics["forward"].values())
    axes.barh(names, forward, label="forward")
    axes.barh(names, list(metrics["selection"].values()), left=forward, label="selection")
    axes.invert_yaxis()
    legend_under(axes)


def _shortest(metrics: Metrics) -> bool:
    """Whether peer study's selection is the shortest but for chance's and the entropy's, which also only sort scores."""
    times: Mapping[str, float] = metrics["selection"]
    others = [each for name, each in times.items() if name not in {"peer_study", "random", "entropy"}]
    return times["peer_study"] < min(others)


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "peer-study/table-1",
        "Table 1: parameters of what each strategy chooses with",
        dict.fromkeys(("smoke", "digits", "small", "paper"), Counted()),
        "nothing: the models are the paper's, but DeepLab for DRN",
        count,
        draw_counts,
        (Claim("peer study has the fewest, for classification", _lightest, ("smoke", "digits", "small", "paper")),),
        tuple(
            Printed(f"{name}, {kind}", ("millions", kind, name), value)
            for kind, values in {
                "classification": {
                    "entropy": 11.17,
                    "badge": 11.17,
                    "alfa_mix": 11.17,
                    "core_set": 11.17,
                    "ll4al": 11.29,
                    "vaal": 23.11,
                    "peer_study": 0.16,
                },
                "segmentation": {"core_set": 15.90, "peer_study": 3.25},
            }.items()
            for name, value in values.items()
        ),
        small="nothing: the models are the paper's, but DeepLab for DRN",
    ),
    Experiment(
        "peer-study/table-2",
        "Table 2: seconds of a selection, the forward pass and the rest apart",
        {scale: Timed(setting, 1 if scale == "smoke" else 5) for scale, setting in SENSITIVE.items()},
        "digits for CIFAR-10, an MLP of 64 units for ResNet-18, of 24 for ResNet-8",
        take_time,
        draw_times,
        (Claim("after the forward pass peer study is quicker than whatever does more than sort scores", _shortest),),
        tuple(
            Printed(f"{name}, all in all", ("selection", name), value)
            for name, value in {
                "entropy": 0.9,
                "badge": 17.2,
                "alfa_mix": 9.1,
                "core_set": 1.2,
                "ll4al": 8.9,
                "vaal": 2.5,
                "peer_study": 0.001,
            }.items()
        ),
        small="MNIST at 14x14 for CIFAR-10, and small networks; one CPU thread for a GPU",
    ),
)
"""What this module runs."""
