"""Splits that are shares of the samples to train on, and samples that are protected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from comity.data.dataset import Dataset
from comity.errors import InvalidValue, MissingFile
from comity.randomness import derive


def taken(dataset: Dataset, share: float, seed: int, name: str, among: Tensor | None = None) -> Tensor:
    """Which samples a share is made of: of each class so many, those whose ids come first in an order that the seed decides.

    The order follows from the ids alone: a sample that is added, or a file that moves, changes nothing for the others.

    Args:
        dataset: The samples.
        share: In [0, 1]; a count that is not whole is rounded to the nearest, an exact half to the even one.
        seed: Decides the order.
        name: What the share is for; another gets another order.
        among: bool `[samples]`, those that may be taken; None for all. The share is one of all of them nevertheless.

    Returns:
        bool `[samples]`.
    """
    order = torch.tensor(sorted(range(len(dataset)), key=lambda at: derive(seed, f"split {name}", dataset.ids[at])))
    found = torch.zeros(len(dataset), dtype=torch.bool)
    grouped = dataset.labels if dataset.labels.ndim == 1 and not dataset.labels.is_floating_point() else None
    for members in _groups(grouped, order):
        free = members if among is None else members[among[members]]
        found[free[: round(share * len(members))]] = True
    return found


def _groups(labels: Tensor | None, order: Tensor) -> list[Tensor]:
    """The samples of each class, in this order; all of them where they have no classes."""
    if labels is None or not len(order):
        return [order]
    return [order[labels[order] == label] for label in torch.unique(labels)]


def protected(dataset: Dataset, marks: float | Path, seed: int, what: str) -> Dataset:
    """The same samples, some of them protected beside those that are already.

    Args:
        dataset: The samples.
        marks: A share of them, or a file with an id a line.
        seed: Decides which, of a share.
        what: What they are, for errors.

    Raises:
        MissingFile: The file cannot be read.
        InvalidValue: It names a sample that there is not.
    """
    if isinstance(marks, Path):
        places = {name: place for place, name in enumerate(dataset.ids)}
        found = torch.zeros(len(dataset), dtype=torch.bool)
        for number, line in enumerate(_lines(marks), start=1):
            if line not in places:
                raise InvalidValue(
                    f"{marks}, line {number}: {what} has no such sample",
                    expected=f"an id such as {next(iter(places), 'none: there is no sample')}",
                    received=line[:200],
                    action="correct the line, or remove it",
                )
            found[places[line]] = True
    else:
        found = taken(dataset, marks, seed, "protected")
    return replace(dataset, protected=found if dataset.protected is None else found | dataset.protected)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingFile(
            "The list of protected samples", expected="a text file with an id a line", received=f"{path}: {error}"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]
