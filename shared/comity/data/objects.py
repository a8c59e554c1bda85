"""Samples that a user has in memory: tensors, arrays, and data sets of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

from comity.data.config import SPLITS, SplitName
from comity.data.dataset import CLASSIFICATION, Dataset, Splits
from comity.data.meaning import UNSAID, Meaning
from comity.data.reading import Reader, ReadInputs, of_pairs
from comity.data.targets import labelled, size_of, told
from comity.errors import InvalidValue

_EXPECTED = "(inputs, labels) as tensors or arrays, or a torch Dataset of such pairs"

_STAMPED = 32
"""Inputs of a data set that is not read at once that are looked at to tell it from another."""

Labels = Tensor | dict[str, Tensor]
"""What is to be told of samples: of one head, or of several by name."""


@dataclass(frozen=True)
class Samples:
    """Samples as tensors.

    Attributes:
        inputs: uint8 or float32 `[samples, ...]`.
        labels: What is to be told of them, as `comity.data.targets` tells it apart; of classes -1 where unknown.
        protected: bool `[samples]`; None for none.
    """

    inputs: Tensor
    labels: Labels
    protected: Tensor | None = None


def samples(data: Any, what: str, split: SplitName = "train") -> Samples:
    """Inputs and labels as a `comity.data.Dataset` has them.

    Args:
        data: Tensors or arrays `(inputs, labels)`, or a torch `Dataset` that gives such pairs; of other samples than those
            to train and to test on labels may be None, and a third member may mark what is protected.
        what: What they are, for errors, for example `clinic's data`.
        split: What they are for.

    Raises:
        InvalidValue: They are something else, empty, or not finite.
    """
    marks = None
    if split not in {"train", "test"} and isinstance(data, tuple | list) and len(data) in {2, 3} and _is_array(data[0]):
        if len(data) == 3:
            marks = _marks(data[2], len(data[0]), what)
        labels = torch.full((len(data[0]),), -1) if data[1] is None else data[1]
        return Samples(*_checked(data[0], labels, what, fewest=-1), marks)
    return Samples(*_checked(*_split(data, what), what))


def _marks(marks: Any, count: int, what: str) -> Tensor:
    found = _tensor(marks, what)
    if found.dtype != torch.bool or found.shape != (count,):
        raise InvalidValue(
            f"{what}: the marks of protected samples cannot be used",
            expected=f"bool [{count}], one for each input",
            received=f"{found.dtype} {list(found.shape)}",
            action="mark each sample with True or False",
        )
    return found


def _checked(given: Any, numbers: Any, what: str, fewest: int = 0) -> tuple[Tensor, Labels]:
    inputs, labels = _tensor(given, what), numbers if isinstance(numbers, dict) else _tensor(numbers, what)
    if inputs.dtype != torch.uint8:
        if inputs.is_complex() or inputs.dtype == torch.bool:
            raise InvalidValue(
                f"{what}: the inputs cannot be used",
                expected="uint8, or numbers that go into float32",
                received=inputs.dtype,
                action="convert them, for example with .float()",
            )
        inputs = inputs.to(torch.float32)
    all_of: dict[str, Tensor] = labels if isinstance(labels, dict) else {"": labels}
    if inputs.ndim < 2 or not len(inputs) or any(len(inputs) != len(each) for each in all_of.values()):
        raise InvalidValue(
            f"{what}: inputs and labels do not go together",
            expected="inputs [samples, ...] and labels [samples], one or more",
            received=" and ".join(str(list(each.shape)) for each in (inputs, *all_of.values())),
            action="give one label for each input, and each input a shape",
        )
    if not bool(torch.isfinite(inputs).all()):
        raise InvalidValue(
            f"{what}: inputs are not all finite",
            expected="finite numbers",
            received=f"{int((~torch.isfinite(inputs)).sum())} that are NaN or infinite",
            action="remove or fill them in",
        )
    if isinstance(labels, dict):
        return inputs.detach().cpu(), {name: each.detach().cpu() for name, each in labels.items()}
    task, targets = told(labels.detach().cpu(), tuple(inputs.shape[1:]), f"{what}: the labels")
    if task == CLASSIFICATION and int(targets.min()) < fewest:
        raise InvalidValue(
            f"{what}: a label is below 0",
            expected="classes from 0",
            received=int(targets.min()),
            action="number them so",
        )
    return inputs.detach().cpu(), targets


def classes_of(samples: Samples) -> int:
    """How many classes samples show that there are; 0 where they have none."""
    if isinstance(samples.labels, dict):
        return 0
    task, targets = told(samples.labels, tuple(samples.inputs.shape[1:]), "the labels")
    return size_of(task, targets) if task in {CLASSIFICATION, "segmentation"} else 0


def dataset(samples: Samples, classes: int, what: str, meaning: Meaning = UNSAID) -> Dataset:
    """Samples of a task with so many classes.

    Args:
        samples: The samples.
        classes: How many classes there are.
        what: What they are, for errors.
        meaning: What the numbers stand for, as far as it fits their sizes.

    Raises:
        InvalidValue: A label is none of them.
    """
    inputs = samples.inputs
    scale = 1 / 255 if inputs.dtype == torch.uint8 else 1.0
    found = labelled(inputs, samples.labels, scale, what, classes)
    if found.task == CLASSIFICATION and int(found.labels.max()) >= classes:
        raise InvalidValue(
            f"{what}: a label is no class",
            expected=f"0 to {classes - 1}",
            received=int(found.labels.max()),
            action="raise classes, or number the labels from 0",
        )
    fits = Meaning(
        labels=meaning.labels if len(meaning.labels) == found.classes else (),
        features=meaning.features if inputs.shape[1:] == (len(meaning.features),) else (),
    )
    return replace(found, protected=samples.protected, meaning=fits)


def _split(data: Any, what: str) -> tuple[Tensor, Labels]:
    if isinstance(data, torch.utils.data.DataLoader):
        raise InvalidValue(
            f"{what}: a DataLoader has its batches made already",
            expected=_EXPECTED,
            received="a DataLoader",
            action="give its .dataset; batch_size is one of the terms",
        )
    if isinstance(data, tuple | list) and len(data) == 2 and _is_array(data[0]) and isinstance(data[1], Mapping):
        return _tensor(data[0], what), {str(name): _tensor(each, what) for name, each in data[1].items()}
    if isinstance(data, tuple | list) and len(data) == 2 and all(_is_array(each) for each in data):
        return _tensor(data[0], what), _tensor(data[1], what)
    if isinstance(data, torch.utils.data.TensorDataset) and len(data.tensors) == 2:
        return data.tensors[0], data.tensors[1]
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, str | bytes | Tensor | dict):
        return _stacked(data, what)
    raise InvalidValue(
        f"{what} cannot be used",
        expected=f"{_EXPECTED}, the name of a source such as 'digits', or a table such as {{'source': 'digits'}}",
        received=type(data).__name__,
        action="see docs/python.md",
    )


def _stacked(data: Sequence[Any], what: str) -> tuple[Tensor, Tensor]:
    """All pairs of a data set, read once."""
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    for index in range(len(data)):
        item = _item(data, index, what)
        if not isinstance(item, tuple | list) or len(item) != 2 or not _is_array(item[0]):
            kinds = [type(each).__name__ for each in item] if isinstance(item, tuple | list) else type(item).__name__
            raise InvalidValue(
                f"{what}: sample {index} is no pair of a tensor and a label",
                expected="(input, label)",
                received=kinds,
                action="give the data set a transform that makes tensors, such as ToTensor()",
            )
        inputs.append(_tensor(item[0], what))
        try:
            labels.append(_tensor(item[1], what) if _is_array(item[1]) else torch.as_tensor(item[1]))
        except (RuntimeError, TypeError, ValueError) as error:
            raise InvalidValue(
                f"{what}: the label of sample {index} cannot be used",
                expected="the number of its class, or a tensor of what else is to be told of it",
                received=repr(item[1])[:100],
                action="give the number of the class, for example with int(label.argmax())",
            ) from error
    if len({each.shape for each in inputs}) > 1:
        raise InvalidValue(
            f"{what}: inputs differ in shape",
            expected="one shape",
            received=", ".join(sorted({str(list(each.shape)) for each in inputs})[:3]),
            action="bring them to one shape with a transform",
        )
    if len({(each.shape, each.dtype) for each in labels}) > 1:
        raise InvalidValue(
            f"{what}: labels differ in shape or dtype",
            expected="one of each",
            received=", ".join(sorted({f"{each.dtype} {list(each.shape)}" for each in labels})[:3]),
            action="make them alike",
        )
    if not inputs:
        return torch.empty(0, 1), torch.empty(0, dtype=torch.int64)
    return torch.stack(inputs), torch.stack(labels)


def _item(data: Sequence[Any], index: int, what: str) -> Any:
    try:
        return data[index]
    except Exception as error:
        raise InvalidValue(
            f"{what}: sample {index} cannot be read",
            expected=_EXPECTED,
            received=f"{type(error).__name__}: {error}",
            action="look at data[0], or give tensors",
        ) from error


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "__array__")


def _tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return torch.from_numpy(np.ascontiguousarray(value))
    except TypeError as error:
        raise InvalidValue(
            f"{what}: an array cannot be used", expected="numbers", received=error, action="convert it to float32"
        ) from error


def by_split(data: Any) -> Mapping[SplitName, Any] | None:
    """Data by what they are for; None for data that are something else.

    Raises:
        InvalidValue: There are none to train on, or a split is unknown.
    """
    if not isinstance(data, Mapping) or "source" in data or not {*SPLITS} & {*data}:
        return None
    if "train" not in data or not {*data} <= {*SPLITS}:
        raise InvalidValue(
            "data by what they are for cannot be used",
            expected=f"train, and any of {', '.join(SPLITS[1:])}",
            received=", ".join(map(str, data)),
            action="rename the splits so",
        )
    return data


def listed_classes(data: Any) -> tuple[str, ...]:
    """The names of the classes of a torch data set that lists them, or of the one to train on."""
    apart = data.get("train") if isinstance(data, Mapping) else data
    classes = getattr(apart, "classes", None)
    return tuple(map(str, classes)) if isinstance(classes, list | tuple) else ()


def splits_of(data: Any, what: str, *, in_memory: bool = True) -> Splits:
    """Samples by what they are for, of whatever somebody has.

    Args:
        data: `Splits`, a `Dataset` of this package, what `samples` takes, or a dict of that by split.
        what: What they are, for errors.
        in_memory: Whether the inputs of torch data sets are read at once, rather than when they are asked for.

    Raises:
        InvalidValue: They cannot be used.
    """
    if isinstance(data, Splits):
        return data
    if isinstance(data, Dataset):
        return Splits(data)
    apart = by_split(data) or {"train": data}
    read = samples if in_memory else _when_asked
    given = {split: read(each, f"{what}, {split} data", split) for split, each in apart.items()}
    names = listed_classes(data)
    count = max([2, len(names), *(classes_of(each) for each in given.values())])
    made = {
        split: dataset(each, count, f"{what}, {split} data", Meaning(labels=names)) for split, each in given.items()
    }
    others = {split: each for split, each in made.items() if split not in {"train", "test"}}
    return Splits(made["train"], made.get("test"), others)


def _when_asked(data: Any, what: str, split: SplitName) -> Samples:
    """Samples of a torch data set, whose inputs are read when they are asked for; labels at once."""
    if isinstance(data, tuple | list) or not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        return samples(data, what, split)
    first = _item(data, 0, what) if len(data) else (torch.empty(0), 0)
    like = torch.as_tensor(first[0])
    if like.dtype != torch.uint8:
        like = like.to(torch.float32)
    known = getattr(data, "targets", None)
    if known is None or len(known) != len(data):
        known = [torch.as_tensor(_item(data, place, what)[1]) for place in range(len(data))]
    labels = torch.stack([torch.as_tensor(each) for each in known]) if len(data) else torch.empty(0, dtype=torch.int64)
    _, targets = told(labels, tuple(like.shape), f"{what}: the labels")
    read = of_pairs(data)
    inputs = ReadInputs(read, torch.arange(len(data)), like, _stamp(read, len(data)))
    return Samples(cast(Tensor, inputs), targets)


def _stamp(read: Reader, count: int) -> str:
    """What tells a torch data set from another without reading all of it: how many inputs it has, and what some of them are.

    Where two readings differ, as with augmentation that is drawn, inputs tell nothing.
    """
    step = max(1, count // _STAMPED)
    places = range(0, count, step)
    first, second = (
        blake3(b"".join(read([place]).contiguous().numpy().tobytes() for place in places)).hexdigest() for _ in range(2)
    )
    return f"{count} {first if first == second else ''}"
