"""What classes are called, and how they are numbered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from comity.data.config import Classes
from comity.data.dataset import Dataset
from comity.data.spelling import spelled
from comity.errors import InvalidValue


def numbers(count: int) -> tuple[str, ...]:
    """The names of classes of which nothing but the numbers is known."""
    return tuple(map(str, range(count)))


def is_unlabelled(dataset: Dataset) -> bool:
    """Whether no sample's class is known: which classes its source has then says nothing."""
    return bool((dataset.labels < 0).all())


def alike(dataset: Dataset, where: str) -> tuple[Dataset, tuple[str, ...]]:
    """The same samples, with classes whose names are spelled as others spell them; and what is to be said of them.

    Args:
        dataset: The samples, with their classes as the source has them.
        where: The source, for errors.

    Raises:
        InvalidValue: Two classes have one name then, or are one number.
    """
    own = dataset.meaning.labels
    names = [spelled(name) for name in own]
    seen: dict[object, str] = {}
    folded: dict[str, list[str]] = {}
    for raw, name in zip(own, names, strict=True):
        said = _number(name)
        if said in seen:
            raise InvalidValue(
                f"{where} has one class under two names",
                expected="classes that are written alike everywhere",
                received=f"{seen[said]!r} and {raw!r}"[:200],
                action="write them alike, or bring them together",
            )
        seen[said] = raw
        folded.setdefault(name.casefold(), []).append(name)
    notes = tuple(
        f"the classes {' and '.join(each)} differ in capital letters alone" for each in folded.values() if len(each) > 1
    )
    if names == list(own):
        return dataset, notes
    # In the order that names have which were spelled so at once.
    order = sorted(own, key=spelled) if sorted(own) == list(own) else own
    return named(dataset, {raw: spelled(raw) for raw in order}), notes


def _number(name: str) -> object:
    """What a name says: the number that it is, or itself."""
    try:
        return float(name)
    except ValueError:
        return name


def named(dataset: Dataset, classes: Classes) -> Dataset:
    """The same samples with the classes in the agreed order, and under the agreed names.

    Samples that come class by class still do, so that folders that are called otherwise give what equal folders give.

    Args:
        dataset: The samples, with their classes as the source has them.
        classes: The agreed names; nothing leaves everything as it is.

    Raises:
        InvalidValue: A class of the source is none of them.
    """
    if not classes:
        return dataset
    if is_unlabelled(dataset):
        agreed = tuple(dict.fromkeys(classes.values() if isinstance(classes, Mapping) else classes))
        return replace(dataset, classes=len(agreed), meaning=replace(dataset.meaning, labels=agreed))
    own = dataset.meaning.labels or numbers(dataset.classes)
    agreed, places = _numbered(own, classes)
    # A label below 0 says that it is unknown.
    labels = torch.tensor(places, dtype=torch.int64)[dataset.labels.clamp(min=0)].where(dataset.labels >= 0, -1)
    by_class = bool((dataset.labels[1:] >= dataset.labels[:-1]).all())
    found = replace(dataset, labels=labels, classes=len(agreed), meaning=replace(dataset.meaning, labels=agreed))
    return found.select(labels.sort(stable=True).indices) if by_class else found


def _numbered(own: Sequence[str], classes: Classes) -> tuple[tuple[str, ...], list[int]]:
    """The agreed names, and the place among them of each own class."""
    to_agreed: Mapping[str, str] = classes if isinstance(classes, Mapping) else _listed(own, classes)
    agreed = tuple(dict.fromkeys(to_agreed.values()))
    unknown = [name for name in own if name not in to_agreed]
    if unknown:
        raise InvalidValue(
            f"[data] classes lacks the class {unknown[0]!r} of the data",
            expected=", ".join(own)[:500],
            received=", ".join(to_agreed)[:500],
            action=f'add it, for example {unknown[0]!r} = "…" in [data.classes], or remove its samples',
        )
    place = {name: number for number, name in enumerate(agreed)}
    return agreed, [place[to_agreed[name]] for name in own]


def _listed(own: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """A list: the classes of a source that numbers them have these names; one that names them has them in this order."""
    if len(set(classes)) != len(classes):
        raise InvalidValue(
            "[data] classes names a class twice", expected="each once", received=", ".join(classes)[:500]
        )
    if tuple(own) == numbers(len(own)) and not set(own) <= set(classes):
        # Numbers without a sample may follow.
        return dict(zip(numbers(len(classes)), classes, strict=True))
    return {name: name for name in classes}
