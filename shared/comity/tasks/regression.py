"""Numbers of samples, one or several for each, or for each pixel: one head with a number for each target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from comity.contract import HeadSpec, Json, Option, TaskSpec
from comity.data import Dataset
from comity.tasks.checks import bad_option, read_options
from comity.tasks.objective import Objective, Outputs, Reduction, Targets, by_name, finite, require_shape, sole
from comity.tasks.samples import SampleKind, wrong_targets

HEAD = "target"
LOSSES = ("squared", "absolute", "huber")


class RegressionKind(SampleKind):
    """See `TaskKind`.

    The option `loss` is `squared`, `absolute` or `huber` (squared up to 1, in scaled units, and linear beyond); `dense` says
    that there is a number for each pixel.
    """

    name = "regression"
    head = HEAD
    counted = "targets"
    options: ClassVar[Mapping[str, Option]] = {"loss": "squared", "dense": False}
    scaled = True

    def require_usable(self, task: TaskSpec) -> None:
        """See `TaskKind.require_usable`."""
        super().require_usable(task)
        if read_options(task, self.options)["loss"] not in LOSSES:
            raise bad_option(task, "loss", " or ".join(LOSSES))

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
        if not fits or not bool(torch.isfinite(targets).all()):
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
        """See `Objective.loss`."""
        made, wanted = sole(outputs, self._head), targets[self._head.name]
        require_shape(made, tuple(wanted.shape))
        off = made - (wanted - self._like(self._mean, wanted)) / self._like(self._std, wanted)
        match self._loss:
            case "squared":
                each = off.square()
            case "absolute":
                each = off.abs()
            case _:
                each = torch.nn.functional.huber_loss(off, torch.zeros_like(off), reduction="none")
        of_samples = (each * self._like(self._weights, each)).flatten(start_dim=1).mean(dim=1)
        return of_samples.mean() if reduction == "mean" else of_samples

    def tally(self) -> DeviationTally:
        """See `Objective.tally`."""
        return DeviationTally(self._head, self)

    def predict(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Objective.predict`: the targets, in their own units."""
        made = sole(outputs, self._head)
        return {HEAD: made * self._like(self._std, made) + self._like(self._mean, made)}

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
        self._seen = 0

    def add(self, outputs: Outputs, targets: Targets) -> None:
        """See `Tally.add`."""
        made, wanted = (
            each.double().cpu().movedim(1, -1).reshape(-1, self._head.size)
            for each in (self._objective.predict(outputs)[HEAD], targets[self._head.name])
        )
        for each in (self._mae, self._mse, self._r2):
            each.update(made, wanted)
        self._seen += len(wanted)

    def results(self) -> dict[str, Json]:
        """See `Tally.results`."""
        squared = self._mse.compute().reshape(-1)
        found: dict[str, Json] = {"mae": finite(self._mae.compute()), "rmse": finite(squared.mean().sqrt())}
        r2 = self._r2.compute().mean() if self._seen > 1 else torch.tensor(math.nan)
        found["r2"] = finite(r2)
        if self._head.size > 1:
            found["rmse_by_target"] = by_name(self._head, squared.sqrt(), torch.isfinite(squared))
        return found


KIND = RegressionKind()
