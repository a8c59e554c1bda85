"""What arrays of targets are for, told from their dtype and shape."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from comity.contract import KIND, HeadSpec
from comity.data.dataset import CLASSIFICATION, MOST_CLASSES, Dataset, Splits
from comity.errors import InvalidValue

SEVERAL = "several"
_EXPECTED = (
    "whole numbers [samples] for classes; bool [samples, labels]; floats [samples] or [samples, targets] for regression, or with "
    "the pixels of the inputs behind; whole numbers [samples, height, width] for masks"
)
_IGNORED = 255
"""Stands for every label of a pixel below 0: one that does not count."""


def told(targets: Tensor, shape: tuple[int, ...], what: str) -> tuple[str, Tensor]:
    """The kind of task that targets are for, and the targets as that kind has them.

    Args:
        targets: The targets, the samples in the first dimension.
        shape: Shape of one input.
        what: What they are, for errors.

    Raises:
        InvalidValue: They are for none.
    """
    whole = not targets.is_floating_point() and not targets.is_complex() and targets.dtype != torch.bool
    pixels = tuple(targets.shape[1:])
    if whole and targets.ndim == 1:
        return CLASSIFICATION, targets.to(torch.int64)
    if targets.dtype == torch.bool and targets.ndim == 2:
        return "multilabel", targets
    if targets.is_floating_point() and (targets.ndim <= 2 or pixels[1:] == shape[1:]):
        return "regression", (targets.unsqueeze(1) if targets.ndim == 1 else targets).to(torch.float32)
    if targets.is_floating_point() and pixels == shape[1:]:
        return "regression", targets.to(torch.float32).unsqueeze(1)
    if whole and len(shape) > 1 and pixels == shape[1:] and (not targets.numel() or int(targets.max()) <= _IGNORED):
        return "segmentation", targets.to(torch.int64).where(targets >= 0, _IGNORED).to(torch.uint8)
    raise InvalidValue(
        f"{what} cannot be used",
        expected=_EXPECTED,
        received=f"{targets.dtype} {list(targets.shape)} for inputs {list(shape)}",
        action="convert them; classes are numbered from 0",
    )


def size_of(task: str, targets: Tensor) -> int:
    """How many classes, labels or targets there are at least."""
    if task == "segmentation":
        counted = targets[targets != _IGNORED]
        return int(counted.max()) + 1 if counted.numel() else 1
    if task == CLASSIFICATION:
        return max(int(targets.max()), 0) + 1 if targets.numel() else 1
    return targets.shape[1]


def require_from_nought(splits: Splits, what: str, action: str) -> None:
    """Checks that classes of which nothing but the numbers is known are numbered from 0.

    Args:
        splits: The samples.
        what: What they are, for the error.
        action: How to say that a class 0 is meant of which there is no sample here.

    Raises:
        InvalidValue: The least number is greater, as with labels from 1.
    """
    if splits.train.task != CLASSIFICATION or splits.train.meaning.labels:
        return
    least = min((int(each.labels.min()) for _, each in splits.items() if len(each)), default=0)
    if least > 0:
        raise InvalidValue(
            f"{what} has labels from {least} on",
            expected="classes that are numbered from 0",
            received=f"{least} to {splits.train.classes - 1}",
            action=f"take {least} off each, or, where others have samples of the first classes, {action}",
        )


def labelled(
    inputs: Tensor,
    targets: Tensor | Mapping[str, Tensor],
    scale: float,
    what: str,
    classes: int | None = None,
) -> Dataset:
    """Samples with targets of any kind.

    Args:
        inputs: The inputs, as a data set has them.
        targets: The targets; of several heads, by their names.
        scale: What inputs are multiplied with.
        what: What they are, for errors.
        classes: How many classes there are, where samples may lack the last.

    Raises:
        InvalidValue: The targets are for no kind of task.
    """
    shape = tuple(inputs.shape[1:])
    if isinstance(targets, Tensor):
        task, told_of = told(targets, shape, what)
        by_class = task in {CLASSIFICATION, "segmentation"}
        size = classes if by_class and classes is not None else size_of(task, told_of)
        return Dataset(inputs, told_of, scale, size, task=task)
    found = {name: told(each, shape, f"{what}: {name}") for name, each in targets.items()}
    if len(found) < 2:
        raise InvalidValue(
            f"{what}: there are too few heads",
            expected="two or more, by name",
            received=", ".join(found) or "none",
            action="give the targets of one head without a name",
        )
    for name in found:
        if not re.fullmatch(KIND, name):
            raise InvalidValue(
                f"{what}: a head cannot be called so",
                expected="a small letter, then small letters, digits, - and _, 32 at most",
                received=name[:40],
                action="give it another name",
            )
    for name, (task, each) in found.items():
        if not 1 <= size_of(task, each) <= MOST_CLASSES:
            raise InvalidValue(
                f"{what}: {name} cannot be used",
                expected=f"1 to {MOST_CLASSES} classes, labels or targets",
                received=size_of(task, each),
                action="number classes from 0, without gaps",
            )
    heads = tuple(
        HeadSpec(name=name, kind=task, size=max(size_of(task, each), 2 if task != "regression" else 1))
        for name, (task, each) in found.items()
    )
    first, *others = found
    more = {name: found[name][1] for name in others}
    targets_of_first = found[first][1]
    return Dataset(inputs, targets_of_first, scale, heads[0].size, task=SEVERAL, heads=heads, more=more)
