"""A node's data, as its configuration says."""

from __future__ import annotations

from torch import Tensor

from comity.data import partitions, sources
from comity.data.config import (
    ClassesPartition,
    ComplementaryPartition,
    DataConfig,
    DominatedPartition,
    ImbalancePartition,
    PartitionConfig,
    PowerLawPartition,
    UniformPartition,
)
from comity.data.dataset import CLASSIFICATION, Splits
from comity.data.noise import corrupt_labels
from comity.errors import InvalidValue


def load_data(config: DataConfig) -> Splits:
    """Reads a node's data: the source, then the limit for each class, then the node's share, then noise.

    Raises:
        MissingFile: A file or folder is not there or of the wrong kind.
        InvalidValue: The source or a setting cannot be used, or nothing is left to train on.
    """
    splits = sources.load(
        config.source, root=config.root, seed=config.seed, image_size=config.image_size, words=config.words
    )
    train = splits.train
    _require_classes(config, train.task)
    if config.per_class is not None:
        train = train.select(partitions.limit_per_class(train.labels, config.per_class))
    if config.partition is not None:
        train = train.select(_indices(config.partition, train.labels))
    if not len(train):
        raise InvalidValue(
            "No sample is left to train on", received=f"partition {config.partition}", action="keep more of each class"
        )
    return Splits(corrupt_labels(train, config.label_noise, config.seed), splits.test)


def _require_classes(config: DataConfig, task: str) -> None:
    """Checks that nothing is asked for that goes by classes, where samples have none."""
    partition = config.partition
    by_class = partition is not None and not isinstance(partition, UniformPartition | PowerLawPartition)
    asked = {"per_class": config.per_class is not None, "partition": by_class, "label_noise": config.label_noise > 0}
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
