"""Numbers of samples, one or several for each, or for each pixel: one head with a number for each target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from comity.contract import HeadSpec, Json, Option, TaskSpec
from comity.data import Dataset
from comity.tasks.checks import bad_option, read_options
from comity.tasks.objective import Objective, Outputs, Reduction, Targets, by_name, finite, require_shape, sole
from comity.tasks.samples import SampleKind, wrong_targets

HEAD = "target"
LOSSES = ("squared", "absolute", "huber", "cosine")
_BINS = 3600
"""In which angles are counted, a twentieth of a degree each."""
_NEAR = (11.25, 22.5, 30.0)
"""Angles within which surface normals are counted, in degrees."""


class RegressionKind(SampleKind):
    """See `TaskKind`.

    The option `loss` is `squared`, `absolute`, `huber` (squared up to 1, in scaled units, and linear beyond) or `cosine`, for
    targets of which all together are a direction, such as a surface's normal: 1 less the cosine of the angle between the two.
    `dense` says that there is a number for each pixel; a pixel of which one is NaN was not measured, and does not count.
    """

    name = "regression"
    head = HEAD
    counted = "targets"
    options: ClassVar[Mapping[str, Option]] = {"loss": "squared", "dense": False}
    scaled = True

    def require_usable(self, task: TaskSpec) -> None:
        """See `TaskKind.require_usable`."""
        super().require_usable(task)
        loss = read_options(task, self.options)["loss"]
        if loss not in LOSSES:
            raise bad_option(task, "loss", " or ".join(LOSSES))
        if loss == "cosine" and task.heads[0].size < 2:
            raise bad_option(task, "loss", "another than cosine for one target: that has no direction")

    def options_of(self, train: Dataset) -> dict[str, Option]:
        """See `SampleKind.options_of`."""
        return {"dense": True} if train.labels.ndim > 2 else {}

    def agree(self, own: TaskSpec, wanted: TaskSpec) -> bool:
        """See `TaskKind.agree`."""
        dense = [read_options(each, self.options)["dense"] for each in (own, wanted)]
        return super().agree(own, wanted) and dense[0] == dense[1]

    def require_targets(self, targets: Tensor, head: HeadSpec, shape: tuple[int, ...]) -> None:
        """See `SampleKind.require_targets`: float32 `[samples, targets]`, or with the pixels of the inputs behind."""
        fits = targets.dtype == torch.float32 and targets.shape[1:] in ((head.size,), (head.size, *shape[1:]))
        # A sample without a number can be left out; a pixel cannot.
        wrong = targets.isinf() if targets.ndim > 2 else ~torch.isfinite(targets)
        if not fits or bool(wrong.any()):
            raise wrong_targets(
                self.name,
                f"finite float32 [samples, {head.size}], or [samples, {head.size}, height, width]",
                f"{targets.dtype} {list(targets.shape)}" if not fits else "numbers that are NaN or infinite",
                "convert them, and leave out samples without",
            )

    def objective(self, task: TaskSpec) -> Objective:
        """See `TaskKind.objective`."""
        return Deviation(task.heads[0], str(read_options(task, self.options)["loss"]))


class Deviation:
    """How far a model's numbers are from the targets, the mean over targets and pixels; see `Objective`.

    A model works in scaled units: of each target `mean` is taken off, and the rest divided by `std`.

    Args:
        head: The head.
        loss: One of `LOSSES`.
    """

    heads: tuple[str, ...] = ()

    def __init__(self, head: HeadSpec, loss: str) -> None:
        self._head = head
        self._loss = loss
        self._weights = torch.tensor(head.weights or [1.0] * head.size)
        self._mean = torch.tensor(head.mean or [0.0] * head.size)
        self._std = torch.tensor(head.std or [1.0] * head.size)

    def loss(self, outputs: Outputs, targets: Targets, reduction: Reduction) -> Tensor:
        """See `Objective.loss`. A sample without a pixel that counts has a loss of 0."""
        made, wanted = sole(outputs, self._head), targets[self._head.name]
        require_shape(made, tuple(wanted.shape))
        counted = counted_in(wanted)
        if self._loss == "cosine":
            each = 1 - cosine_similarity(self._in_units(made), wanted.nan_to_num(), dim=1).unsqueeze(1)
            of_samples = _mean_of(each, counted)
            return of_samples.mean() if reduction == "mean" else of_samples
        off = made - (wanted - self._like(self._mean, wanted)) / self._like(self._std, wanted)
        if counted is not None:
            off = off.where(counted, 0.0)
        match self._loss:
            case "squared":
                each = off.square()
            case "absolute":
                each = off.abs()
            case _:
                each = torch.nn.functional.huber_loss(off, torch.zeros_like(off), reduction="none")
        of_samples = _mean_of(each * self._like(self._weights, each), counted)
        return of_samples.mean() if reduction == "mean" else of_samples

    def imitated(self, outputs: Outputs, teacher: Outputs, temperature: float) -> Tensor:
        """See `Imitable.imitated`: the squared distance from the teacher's numbers, in scaled units; there is no temperature."""
        del temperature
        off = sole(outputs, self._head) - sole(teacher, self._head)
        return (off.square() * self._like(self._weights, off)).mean()

    def tally(self) -> DeviationTally:
        """See `Objective.tally`."""
        return DeviationTally(self._head, self)

    def predict(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Objective.predict`: the targets, in their own units."""
        return {HEAD: self._in_units(sole(outputs, self._head))}

    @property
    def is_direction(self) -> bool:
        """Whether the targets together are a direction."""
        return self._loss == "cosine"

    def _in_units(self, made: Tensor) -> Tensor:
        return made * self._like(self._std, made) + self._like(self._mean, made)

    @staticmethod
    def _like(values: Tensor, targets: Tensor) -> Tensor:
        """A number for each target, so that it can be combined with targets."""
        return values.to(targets).view(1, -1, *[1] * (targets.ndim - 2))


class DeviationTally:
    """A test of numbers, in their own units; see `Tally`."""

    def __init__(self, head: HeadSpec, objective: Deviation) -> None:
        from torchmetrics import regression as of  # noqa: PLC0415 - it takes a second

        self._head = head
        self._objective = objective
        self._mae = of.MeanAbsoluteError().set_dtype(torch.float64)
        self._mse = of.MeanSquaredError(num_outputs=head.size).set_dtype(torch.float64)
        self._r2 = of.R2Score(multioutput="raw_values").set_dtype(torch.float64)
        self._angles = torch.zeros(_BINS, dtype=torch.int64) if objective.is_direction else None
        self._turned = 0.0
        self._seen = 0

    def add(self, outputs: Outputs, targets: Targets) -> None:
        """See `Tally.add`."""
        made, wanted = (
            each.double().cpu().movedim(1, -1).reshape(-1, self._head.size)
            for each in (self._objective.predict(outputs)[HEAD], targets[self._head.name])
        )
        counted = wanted.isfinite().all(dim=1)
        made, wanted = made[counted], wanted[counted]
        if not len(wanted):
            return
        if self._angles is not None:
            angles = cosine_similarity(made, wanted, dim=1).clamp(-1, 1).arccos().rad2deg()
            self._angles += torch.histc(angles, _BINS, 0, 180).long()
            self._turned += float(angles.sum())
        for each in (self._mae, self._mse, self._r2):
            each.update(made, wanted)
        self._seen += len(wanted)

    def results(self) -> dict[str, Json]:
        """See `Tally.results`. Of directions also the angles between the two, in degrees."""
        if not self._seen:
            return dict.fromkeys(("mae", "rmse", "r2"))
        squared = self._mse.compute().reshape(-1)
        found: dict[str, Json] = {"mae": finite(self._mae.compute()), "rmse": finite(squared.mean().sqrt())}
        r2 = self._r2.compute().mean() if self._seen > 1 else torch.tensor(math.nan)
        found["r2"] = finite(r2)
        if self._head.size > 1:
            found["rmse_by_target"] = by_name(self._head, squared.sqrt(), torch.isfinite(squared))
        return found if self._angles is None else found | self._of_angles(self._angles)

    def _of_angles(self, counts: Tensor) -> dict[str, Json]:
        below, step = counts.cumsum(0).double() / self._seen, 180 / _BINS
        found: dict[str, Json] = {
            "angle": self._turned / self._seen,
            "median_angle": (int((below < 0.5).sum()) + 0.5) * step,
        }
        return found | {f"within_{near:g}": float(below[round(near / step) - 1]) for near in _NEAR}


def counted_in(wanted: Tensor) -> Tensor | None:
    """Of targets for each pixel, which pixels have all of them: bool `[samples, 1, height, width]`; None of other targets."""
    return wanted.isfinite().all(dim=1, keepdim=True) if wanted.ndim > 2 else None


def _mean_of(each: Tensor, counted: Tensor | None) -> Tensor:
    """The mean of each sample's numbers, over the pixels that count."""
    if counted is None:
        return each.flatten(start_dim=1).mean(dim=1)
    total = each.where(counted, 0.0).flatten(start_dim=1).sum(dim=1)
    return total / (counted.flatten(start_dim=1).sum(dim=1) * each.shape[1]).clamp(min=1)


KIND = RegressionKind()
