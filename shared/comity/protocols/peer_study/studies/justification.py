"""Figure 7: what peers agree on is right more often than what they differ on, at any discrepancy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from comity.experiments.charts import bars, panels
from comity.experiments.datasets import title
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics, Scale
from comity.protocols.peer_study.algorithm import consensus_split, discrepancy
from comity.protocols.peer_study.students import Labelled, Losses, PeerStudents, fit_task_model
from comity.protocols.peer_study.studies.lab import Cohort, Setting
from comity.protocols.peer_study.studies.sizes import STANDARD
from comity.randomness import derive, seeded
from comity.training import Secret

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GROUPS = 5


@dataclass(frozen=True)
class Groups:
    """Peers that learned In-Class alone, and samples that they are tried on.

    Attributes:
        setting: The samples and the models.
        labelled: How many are learned from.
        tested: How many of the test samples are told.
        seeds: One run each.
    """

    setting: Setting
    labelled: int
    tested: int
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return (title(self.setting.samples.name),)


def justify(settings: Groups, context: ExperimentContext) -> Metrics:
    """By group of rising discrepancy: how many the two peers agree on, how many not, and how often a peer is right."""
    runs = [_run(settings, seed, context) for seed in settings.seeds]
    return {
        "groups": [
            {
                kind: {
                    "samples": fmean(group[kind][0] for group in same),
                    "right": _share([group[kind] for group in same]),
                }
                for kind in ("consensus", "dissent")
            }
            for same in zip(*runs, strict=True)
        ]
    }


def _share(counts: list[tuple[int, float]]) -> float | None:
    """The share that is right, over all seeds; None where there is none of this kind."""
    samples = sum(each for each, _ in counts)
    return sum(right for _, right in counts) / samples if samples else None


def _run(settings: Groups, seed: int, context: ExperimentContext) -> list[dict[str, tuple[int, float]]]:
    context.say(f"  {settings.setting.samples.name}, seed {seed}")
    lab = Cohort.of(settings.setting, seed, context)
    (client,) = lab.clients
    plan, secret = settings.setting.plan, Secret(b"lab", str(seed))
    indices = torch.arange(settings.labelled)
    labelled = Labelled(indices, client.oracle.label(indices))
    with seeded(derive(seed, "teacher")):
        teacher = lab.models.task_model()
    fit_task_model(teacher, client.pool, labelled, plan.fitting, secret, 0)
    students = PeerStudents(lab.models.student, 2, derive(seed, "students"), plan.fitting, Losses(margin=0.0))
    students.fit(teacher, client.pool, labelled, secret, 0)
    inputs, labels = (each[: settings.tested] for each in lab.test)
    with torch.inference_mode():
        logits = torch.cat([students(some) for some in inputs.split(1000)], dim=1)
    agreed, apart = consensus_split(logits), discrepancy(logits)
    right = (logits.argmax(dim=2) == labels).double().mean(dim=0)
    return [
        {
            kind: (int(chosen[group].sum()), float(right[group][chosen[group]].sum()))
            for kind, chosen in (("consensus", agreed), ("dissent", ~agreed))
        }
        for group in apart.argsort(stable=True).chunk(_GROUPS)
    ]


def draw(metrics: Metrics, figure: Figure) -> None:
    """Bars by group."""
    left, right = panels(figure, ["samples by group of discrepancy", "how often a peer is right"])
    groups = {str(at): group for at, group in enumerate(metrics["groups"], start=1)}
    bars(left, {at: {kind: each["samples"] for kind, each in group.items()} for at, group in groups.items()})
    bars(right, {at: {kind: each["right"] for kind, each in group.items()} for at, group in groups.items()})


def _agreed_are_right(metrics: Metrics) -> bool | None:
    both = [
        (group["consensus"]["right"], group["dissent"]["right"])
        for group in metrics["groups"]
        if None not in (group["consensus"]["right"], group["dissent"]["right"])
    ]
    return all(agreed > differed for agreed, differed in both) if both else None


def _dissent_is_above(metrics: Metrics) -> bool:
    """Whether most of what peers differ on is in the upper two groups."""
    counts: list[float] = [group["dissent"]["samples"] for group in metrics["groups"]]
    return sum(counts[-2:]) >= sum(counts) / 2


_SIZES: Mapping[Scale, tuple[int, int]] = {
    "smoke": (60, 100),
    "digits": (80, 450),
    "small": (400, 10_000),
    "paper": (4000, 1000),
}

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "peer-study/fig-7",
        "Fig. 7: two peers without Out-of-Class Peer Study, on test samples in five groups of rising discrepancy",
        {
            scale: Groups(replace(setting, clients=1), *_SIZES[scale], seeds=(0,) if scale == "smoke" else (0, 1, 2))
            for scale, setting in STANDARD.items()
        },
        "80 labelled digits for 4,000 of CIFAR-10, and MLPs of 24 units",
        justify,
        draw,
        (
            Claim("in each group a peer is right more often on what both agree on", _agreed_are_right),
            Claim("most of what they differ on is in the upper two groups", _dissent_is_above),
        ),
        small="400 labelled samples of MNIST at 14x14 for 4,000 of CIFAR-10, and small networks; all test samples",
    ),
)
"""What this module runs."""
