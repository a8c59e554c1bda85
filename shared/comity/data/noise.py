"""Other labels for samples: coarser ones, and, for experiments on what data of poor quality is worth, wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from comity.data.classes import is_unlabelled
from comity.data.dataset import Dataset
from comity.errors import InvalidValue
from comity.randomness import derive, generator


def corrupt_labels(dataset: Dataset, share: float, seed: int) -> Dataset:
    """The same samples, of which some have the label of another class, each other class being as likely.

    Args:
        dataset: What to corrupt; it stays as it is.
        share: The share of samples, 0 to 1; a count that is not whole is rounded to the nearest, an exact half to the
            even one.
        seed: Decides which, and to what. Of the same samples, those that a smaller share corrupts are among those that
            a larger one does.

    Raises:
        InvalidValue: The share is out of its range, or there is no other class.
    """
    if not 0 <= share <= 1:
        raise InvalidValue("The share of labels to corrupt", expected="0 to 1", received=share)
    count = round(share * len(dataset))
    if count and dataset.classes < 2:
        raise InvalidValue("Labels cannot be corrupted", expected="2 classes or more", received=dataset.classes)
    if not count:
        return dataset
    draws = generator(derive(seed, "label noise"))
    order = torch.randperm(len(dataset), generator=draws)
    steps = torch.randint(1, dataset.classes, (len(dataset),), generator=draws)
    labels = dataset.labels.clone()
    corrupted = order[:count]
    labels[corrupted] = (labels[corrupted] + steps[:count]) % dataset.classes
    return replace(dataset, labels=labels)


def relabeled(dataset: Dataset, relabel: Sequence[int]) -> Dataset:
    """The same samples with other labels; there are as many classes as the greatest of them needs.

    Args:
        dataset: The samples; it stays as it is.
        relabel: What the label of each class becomes, in the order of the classes.

    Raises:
        InvalidValue: It does not have one for each class.
    """
    classes = max(relabel) + 1
    if is_unlabelled(dataset):
        return replace(dataset, classes=classes, meaning=replace(dataset.meaning, labels=()))
    if len(relabel) != dataset.classes:
        raise InvalidValue(
            "Labels cannot be given to classes",
            expected=f"{dataset.classes} in data.relabel, one for each class",
            received=len(relabel),
        )
    # A label below 0 says that it is unknown.
    labels = torch.tensor(relabel, dtype=torch.int64)[dataset.labels.clamp(min=0)].where(dataset.labels >= 0, -1)
    meaning = dataset.meaning if classes == dataset.classes else replace(dataset.meaning, labels=())
    return replace(dataset, labels=labels, classes=classes, meaning=meaning)
