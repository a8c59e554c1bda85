"""A node's data, as its configuration says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from comity.data import partitions, sources, splitting
from comity.data.classes import alike, named
from comity.data.config import (
    SPLITS,
    ClassesPartition,
    ComplementaryPartition,
    DataConfig,
    DominatedPartition,
    ImbalancePartition,
    PartitionConfig,
    PowerLawPartition,
    SplitConfig,
    SplitName,
    UniformPartition,
)
from comity.data.dataset import CLASSIFICATION, Dataset, Splits
from comity.data.noise import corrupt_labels, relabeled
from comity.errors import InvalidValue


def load_data(config: DataConfig) -> Splits:
    """Reads a node's data: the source, then the limit for each class, then the node's share, then its splits, then noise.

    Raises:
        MissingFile: A file or folder is not there or of the wrong kind.
        InvalidValue: The source or a setting cannot be used, or nothing is left to train on.
    """
    read = read_source(config)
    train = read.train
    _require_classes(config, train.task)
    if config.per_class is not None:
        train = train.select(partitions.limit_per_class(train.labels, config.per_class))
    if config.partition is not None:
        train = train.select(_indices(config.partition, train.labels))
    found: dict[SplitName, Dataset] = dict(read.items())
    notes = list(read.notes)
    left = torch.ones(len(train), dtype=torch.bool)
    for name in SPLITS:
        wanted = config.splits.get(name)
        if wanted is None:
            continue
        if wanted.source is not None:
            apart = _read(config, wanted.source, labelled=wanted.labelled)
            found[name] = _like(apart.train, train, name)
            notes += [f"{name}: {note}" for note in apart.notes]
        else:
            share = splitting.taken(train, wanted.share or 0.0, config.seed, name, left)
            left &= ~share
            found[name] = _some(train.select(torch.nonzero(share).flatten()), f"splits.{name}.share")
        found[name] = _marked(found[name], wanted, config, name)
    train = _some(train.select(torch.nonzero(left).flatten()) if config.splits else train, "partition and splits")
    if config.without:
        kept = torch.isin(train.labels, torch.tensor(config.without), invert=True)
        train = _some(train.select(torch.nonzero(kept).flatten()), "without")
    others = {name: each for name, each in found.items() if name not in {"train", "test"}}
    train = corrupt_labels(train, config.label_noise, config.seed)
    splits = Splits(train, found.get("test"), others, (*notes, *_lacking(train), *_constant(train)), config.hide_names)
    return with_features(splits, config.features) if config.features else splits


def read_source(config: DataConfig, *, labelled: bool = True) -> Splits:
    """All samples of a node's source, with the classes as its configuration has them: no share is taken.

    Args:
        config: The node's data.
        labelled: Whether their labels are known; of samples without, each is -1.

    Raises:
        MissingFile: A file or folder is not there or of the wrong kind.
        InvalidValue: The source or a setting cannot be used.
    """
    return _read(config, config.source, labelled=labelled)


def with_features(splits: Splits, features: tuple[str, ...]) -> Splits:
    """The same samples, whose features have these names.

    Raises:
        InvalidValue: They are not as many, or have names already.
    """
    own = splits.train.meaning.features
    if splits.train.input_shape != (len(features),) or own not in {(), features}:
        raise InvalidValue(
            "[data] features cannot be used",
            expected=", ".join(own)[:500] or f"a name for each of the features, {list(splits.train.input_shape)}",
            received=f"{len(features)} names",
            action="correct it, or leave it out",
        )
    named_so = {name: replace(each, meaning=replace(each.meaning, features=features)) for name, each in splits.items()}
    others = {name: each for name, each in named_so.items() if name not in {"train", "test"}}
    return replace(splits, train=named_so["train"], test=named_so.get("test"), others=others)


def _read(config: DataConfig, source: str, *, labelled: bool) -> Splits:
    """A source, with its classes named, and its labels, as the configuration has them."""
    read = sources.load(
        source,
        root=config.root,
        seed=config.seed,
        image_size=config.image_size,
        words=config.words,
        labelled=labelled,
        channels=config.channels,
        table=config.table,
        in_memory=config.in_memory,
    )
    if read.train.task == CLASSIFICATION:
        read = _alike(read, source)
    if not config.classes and not config.relabel:
        return read
    if read.train.task != CLASSIFICATION:
        raise InvalidValue(
            "[data] classes and relabel are for samples with classes",
            expected="none",
            received=read.train.task,
            action="leave them out",
        )

    def changed(dataset: Dataset) -> Dataset:
        dataset = named(dataset, config.classes)
        return relabeled(dataset, config.relabel) if config.relabel else dataset

    others = {name: changed(each) for name, each in read.others.items()}
    return Splits(changed(read.train), None if read.test is None else changed(read.test), others, read.notes)


def _alike(read: Splits, source: str) -> Splits:
    """A source whose classes are spelled as others spell them."""
    found = {name: alike(each, source) for name, each in read.items()}
    others = {name: each for name, (each, _) in found.items() if name not in {"train", "test"}}
    test = found["test"][0] if read.test is not None else None
    train, said = found["train"]
    return replace(read, train=train, test=test, others=others, notes=(*read.notes, *said))


def _like(apart: Dataset, train: Dataset, name: SplitName) -> Dataset:
    """A split from a source of its own, numbered as the training samples are.

    Raises:
        InvalidValue: It has classes that those lack.
    """
    own, wanted = apart.meaning.labels, train.meaning.labels
    if own == wanted or not own or not wanted:
        return replace(apart, classes=max(apart.classes, train.classes)) if apart.classes < train.classes else apart
    if surplus := [each for each in own if each not in wanted]:
        raise InvalidValue(
            f"the split {name} has a class that the training samples lack",
            expected=", ".join(wanted)[:500],
            received=surplus[0],
            action="rename it, or list all of them in [data] classes",
        )
    return named(apart, wanted)


def _marked(dataset: Dataset, wanted: SplitConfig, config: DataConfig, name: SplitName) -> Dataset:
    """A split with the marks of what is protected, and without labels where they are unknown."""
    if not wanted.labelled:
        unknown = -1 if dataset.task == CLASSIFICATION else 0
        dataset = replace(dataset, labels=torch.full_like(dataset.labels, unknown))
    marks = wanted.protected
    if marks is None:
        return dataset
    if isinstance(marks, Path):
        marks = (config.root or Path()).expanduser() / marks.expanduser()
    return splitting.protected(dataset, marks, config.seed, f"the split {name}")


def _some(dataset: Dataset, what: str) -> Dataset:
    if not len(dataset):
        raise InvalidValue(
            "No sample is left to train on" if not what.startswith("splits.") else "No sample is left for a split",
            expected="1 or more",
            received=f"none, by {what}",
            action="keep more of each class, or lower the shares of the splits",
        )
    return dataset


def _lacking(train: Dataset) -> tuple[str, ...]:
    """A line that names classes without a sample."""
    if train.task != CLASSIFICATION:
        return ()
    counts = torch.bincount(train.labels.clamp(min=0), minlength=train.classes).tolist()
    names = train.meaning.labels or tuple(map(str, range(train.classes)))
    empty = [name for name, count in zip(names, counts, strict=False) if not count]
    return (f"no sample to train on of {', '.join(empty)[:200]}",) if empty else ()


def _constant(train: Dataset) -> tuple[str, ...]:
    """A line that names columns of a table that tell samples apart nowhere here."""
    if not train.meaning.features or not isinstance(train.inputs, Tensor):
        return ()
    same = (train.inputs == train.inputs[0]).all(dim=0).tolist()
    flat = [name for name, each in zip(train.meaning.features, same, strict=True) if each]
    return (f"{', '.join(flat)[:200]}: the same in all samples to train on",) if flat else ()


def _require_classes(config: DataConfig, task: str) -> None:
    """Checks that nothing is asked for that goes by classes, where samples have none."""
    partition = config.partition
    by_class = partition is not None and not isinstance(partition, UniformPartition | PowerLawPartition)
    asked = {
        "classes": bool(config.classes),
        "per_class": config.per_class is not None,
        "partition": by_class,
        "label_noise": config.label_noise > 0,
    }
    if task != CLASSIFICATION and any(asked.values()):
        raise InvalidValue(
            f"[data] {next(name for name, given in asked.items() if given)} goes by classes",
            expected=f"uniform or power-law partitions for {task}",
            received=partition.name if by_class and partition is not None else "a setting for classes",
            action="leave it out, or use data with classes",
        )


def _indices(partition: PartitionConfig, labels: Tensor) -> Tensor:
    """The samples that are a node's share, among those with these labels."""
    settings = partition.model_dump(exclude={"name"})
    match partition:
        case UniformPartition():
            return partitions.uniform(labels, **settings)
        case ImbalancePartition():
            return partitions.imbalance(labels, **settings)
        case DominatedPartition():
            return partitions.dominated(labels, **settings)
        case ComplementaryPartition():
            return partitions.complementary(labels, **settings)
        case PowerLawPartition():
            return partitions.power_law(labels, **settings)
        case ClassesPartition():
            return partitions.class_range(labels, **settings)
