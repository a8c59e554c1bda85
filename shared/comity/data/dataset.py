"""Labelled samples as two tensors, kept as their source has them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from comity.contract import HeadSpec
from comity.data.config import SPLITS, SplitName
from comity.data.meaning import UNSAID, Meaning
from comity.data.reading import ReadInputs
from comity.errors import InvalidValue

CLASSIFICATION = "classification"
MOST_CLASSES = 2**16
"""Most classes, labels or targets: a contract names as many."""

HEADS: Mapping[str, str] = {
    CLASSIFICATION: "class",
    "multilabel": "label",
    "regression": "target",
    "segmentation": "mask",
}
"""What the one head of a task is called, by kind; of kinds that packages add it is called as the kind."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and their labels, as stored; `prepare` brings a batch of them into the range that models work in.

    Attributes:
        inputs: uint8 or float32, `[samples, *input_shape]`; images are `[samples, channels, height, width]`. Where they do
            not fit in memory, a `ReadInputs`, which reads them when it is indexed, and passes for a tensor until then.
        labels: What is to be told of each sample: int64 `[samples]`, each in [0, classes). In other tasks than
            classification, targets as the kind of task has them, the samples in the first dimension: bool `[samples, labels]`,
            float32 `[samples, targets]`, uint8 `[samples, height, width]`.
        scale: What a stored value is multiplied with: 1/255 for uint8 images, 1/16 for digits, 1 where nothing is to
            be done.
        classes: How many classes the task has, also those without a sample here; or labels, or targets.
        task: The kind of task that they are for.
        heads: For tasks of several heads, what these are, in order.
        more: For such tasks, the targets of every head but the first, whose targets are `labels`; by the head's name.
        ids: What each sample is called, each once: the same whenever the source is read, whatever share of it is kept.
            Left out, they are numbered.
        protected: bool `[samples]`, samples that may never leave their owner; None for none.
        meaning: What the numbers stand for.
        texts: Each sample as people read it, where its numbers do not show it: a sentence of which they are words; none
            otherwise.

    Raises:
        InvalidValue: The tensors do not fit each other or this description. The values in them are not looked at.
    """

    inputs: Tensor
    labels: Tensor
    scale: float
    classes: int
    ids: tuple[str, ...] = ()
    protected: Tensor | None = None
    meaning: Meaning = UNSAID
    task: str = CLASSIFICATION
    heads: tuple[HeadSpec, ...] = ()
    more: Mapping[str, Tensor] = field(default_factory=dict)
    texts: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.inputs.dtype not in (torch.uint8, torch.float32) or self.inputs.ndim <= 1:
            raise InvalidValue(
                "The inputs of a data set",
                expected="uint8 or float32 [samples, ...]",
                received=f"{self.inputs.dtype} {list(self.inputs.shape)}",
            )
        self._require_targets()
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise InvalidValue("The scale of a data set", expected="a finite number above 0", received=self.scale)
        if not 1 <= self.classes <= MOST_CLASSES:
            raise InvalidValue(
                "The classes of a data set",
                expected=f"1 to {MOST_CLASSES}",
                received=self.classes,
                action="number them from 0, without gaps",
            )
        count = len(self.inputs)
        if not self.ids:
            object.__setattr__(self, "ids", tuple(map(str, range(count))))
        if len(self.ids) != count or len(set(self.ids)) != count:
            raise InvalidValue(
                "The ids of a data set",
                expected=f"{count}, each once",
                received=f"{len(self.ids)}, {len(set(self.ids))} of them different",
                action="give every sample an id of its own",
            )
        if len(self.texts) not in {0, count}:
            raise InvalidValue("The texts of a data set", expected=f"{count}, or none", received=len(self.texts))
        marks = self.protected
        if marks is not None and (marks.dtype != torch.bool or marks.shape != (count,)):
            raise InvalidValue(
                "The marks of protected samples",
                expected=f"torch.bool [{count}], one for each input",
                received=f"{marks.dtype} {list(marks.shape)}",
            )

    def _require_targets(self) -> None:
        if self.task == CLASSIFICATION and (
            self.labels.dtype != torch.int64 or self.labels.shape != self.inputs.shape[:1]
        ):
            raise InvalidValue(
                "The labels of a data set",
                expected=f"torch.int64 [{len(self.inputs)}], one for each input",
                received=f"{self.labels.dtype} {list(self.labels.shape)}",
            )
        if len(self.heads) != len(self.more) + 1 and (self.heads or self.more):
            raise InvalidValue(
                "The heads of a data set",
                expected="targets for each of them",
                received=f"{len(self.heads)} heads, targets of {len(self.more) + 1}",
            )
        for name, each in self.targets.items():
            if each.shape[:1] != self.inputs.shape[:1]:
                raise InvalidValue(
                    f"The targets {name} of a data set",
                    expected=f"{len(self.inputs)}, one for each input",
                    received=list(each.shape),
                )

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.inputs.shape[1:])

    @property
    def all_inputs(self) -> Tensor:
        """The inputs of all samples, read if they are not in memory."""
        return self.inputs[torch.arange(len(self))] if isinstance(self.inputs, ReadInputs) else self.inputs

    @property
    def kind(self) -> str:
        """What one sample is, in words; two data sets can be used together where theirs are equal."""
        shape = list(self.input_shape)
        if self.task == CLASSIFICATION:
            what = f"{self.classes} classes"
        else:
            targets = ", ".join(f"{each.dtype} {list(each.shape[1:])}" for each in self.targets.values())
            what = f"{self.task} with targets {targets}"
        return f"{self.inputs.dtype} samples of shape {shape}, scale {self.scale}, {what}"

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for a sample, or for each of its pixels: those of all heads."""
        return sum(head.size for head in self.heads) if self.heads else self.classes

    @property
    def targets(self) -> dict[str, Tensor]:
        """What is to be told of each sample, by head; of a task with one head, as the kind of task calls it."""
        if not self.heads:
            return {HEADS.get(self.task, self.task): self.labels}
        return {self.heads[0].name: self.labels, **self.more}

    def targets_of(self, indices: Tensor) -> dict[str, Tensor]:
        """The targets of the samples at these places, by head."""
        return {name: each[indices] for name, each in self.targets.items()}

    def select(self, indices: Tensor) -> Dataset:
        """The samples at these places, in this order, copied; where one comes several times, all are numbered anew.

        Args:
            indices: int64 `[selected]`, each in [0, len(self)), on the device of the data.
        """
        ids = tuple(self.ids[each] for each in indices.tolist())
        return replace(
            self,
            inputs=self.inputs.select(indices) if isinstance(self.inputs, ReadInputs) else self.inputs[indices],
            labels=self.labels[indices],
            ids=ids if len(set(ids)) == len(ids) else (),
            protected=None if self.protected is None else self.protected[indices],
            texts=tuple(self.texts[each] for each in indices.tolist()) if self.texts else (),
            more={name: each[indices] for name, each in self.more.items()},
        )

    def concat(self, other: Dataset) -> Dataset:
        """These samples and then the other's, for baselines on pooled data; they are numbered anew.

        Raises:
            InvalidValue: The two differ in shape, dtype, scale or classes.
        """
        if self.kind != other.kind:
            raise InvalidValue("Two data sets cannot be pooled", expected=self.kind, received=other.kind)
        return replace(
            self,
            inputs=torch.cat((self.all_inputs, other.all_inputs)),
            labels=torch.cat((self.labels, other.labels)),
            more={name: torch.cat((each, other.more[name])) for name, each in self.more.items()},
            ids=(),
            protected=None,
            texts=self.texts + other.texts if self.texts and other.texts else (),
        )

    def to(self, device: torch.device | str) -> Dataset:
        """The same samples on a device, still as stored."""
        marks = None if self.protected is None else self.protected.to(device)
        more = {name: each.to(device) for name, each in self.more.items()}
        return replace(self, inputs=self.inputs.to(device), labels=self.labels.to(device), protected=marks, more=more)

    def prepare(self, batch_inputs: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        """Stored inputs as a model takes them: scaled, and then normalized where mean and standard deviation are given.

        Args:
            batch_inputs: Stored inputs, `[batch, *input_shape]`, on any device.
            mean: One value for each channel (the first dimension of a sample), in scaled units; () leaves it out.
            std: The same, each above 0.

        Returns:
            float32 of the same shape: `(batch_inputs * scale - mean) / std`.

        Raises:
            InvalidValue: Mean and standard deviation do not fit the channels, or a standard deviation is not above 0.
        """
        stored = batch_inputs.to(torch.float32)
        scaled = stored if self.scale == 1.0 else stored * self.scale
        if not mean and not std:
            return scaled
        channels = batch_inputs.shape[1]
        if len(mean) != channels or len(std) != channels or not all(value > 0 for value in std):
            raise InvalidValue(
                "The mean and standard deviation to normalize with",
                expected=f"{channels} values each, one a channel, each standard deviation above 0",
                received=f"{mean} and {std}",
            )
        per_channel = (-1,) + (1,) * (batch_inputs.ndim - 2)
        device = batch_inputs.device
        return (scaled - torch.tensor(mean, device=device).view(per_channel)) / torch.tensor(std, device=device).view(
            per_channel
        )


@dataclass(frozen=True)
class Splits:
    """A party's samples, by what they are for.

    Attributes:
        train: What to train on.
        test: What to test on, where there is such a split.
        others: Further splits by name: `validation`, `calibration`, `pool`.
        notes: What there is to say of them, a line each: what was passed over, which class has no sample.
        hides_names: Whether names of classes and features cross as digests alone.

    Raises:
        InvalidValue: There is no such split, or it is not like the one to train on.
    """

    train: Dataset
    test: Dataset | None = None
    others: Mapping[SplitName, Dataset] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hides_names: bool = False

    def __post_init__(self) -> None:
        if wrong := [name for name in self.others if name not in SPLITS or name in {"train", "test"}]:
            raise InvalidValue(
                "There is no such split", expected=", ".join(SPLITS[2:]), received=wrong[0], action="rename it"
            )
        for name, each in self.items():
            if each.kind != self.train.kind:
                raise InvalidValue(
                    f"The split {name} is not like the one to train on",
                    expected=self.train.kind,
                    received=each.kind,
                    action="prepare both in the same way",
                )

    def find(self, name: SplitName) -> Dataset | None:
        """A split by its name; None where there is none."""
        return dict(self.items()).get(name)

    def split(self, name: SplitName) -> Dataset:
        """A split by its name.

        Raises:
            InvalidValue: There is none.
        """
        found = self.find(name)
        if found is None:
            raise InvalidValue(
                f"The data have no split {name}",
                expected=f"[data.splits.{name}] with a source, or with the share of the training samples that it takes",
                received=", ".join(each for each, _ in self.items()),
                action=f"configure it, for example share = 0.2; in Python, data={{'train': …, {name!r}: …}}",
            )
        return found

    def items(self) -> Iterator[tuple[SplitName, Dataset]]:
        """Every split that there is, by its name, in the order of `SPLITS`."""
        known: dict[SplitName, Dataset | None] = {"train": self.train, "test": self.test, **self.others}
        for name in SPLITS:
            each = known.get(name)
            if each is not None:
                yield name, each


def no_samples(input_shape: tuple[int, ...], classes: int) -> Splits:
    """The data of a party that has none: nothing is trained or tested with them, whatever the task."""
    return Splits(Dataset(torch.empty(0, *input_shape), torch.empty(0, dtype=torch.int64), 1.0, classes), None)
