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
from comity.data.dataset import Splits
from comity.data.noise import corrupt_labels, relabeled
from comity.errors import InvalidValue


def load_data(config: DataConfig) -> Splits:
    """Reads a node's data: the source, then the limit for each class, then the node's share, then other labels, then noise.

    Raises:
        MissingFile: A file or folder is not there or of the wrong kind.
        InvalidValue: The source or a setting cannot be used, or nothing is left to train on.
    """
    splits = sources.load(
        config.source, root=config.root, seed=config.seed, image_size=config.image_size, words=config.words
    )
    train = splits.train
    if config.per_class is not None:
        train = train.select(partitions.limit_per_class(train.labels, config.per_class))
    if config.partition is not None:
        train = train.select(_indices(config.partition, train.labels))
    if not len(train):
        raise InvalidValue(
            "No sample is left to train on", received=f"partition {config.partition}", action="keep more of each class"
        )
    test = splits.test
    if config.relabel is not None:
        train = relabeled(train, config.relabel)
        test = None if test is None else relabeled(test, config.relabel)
    return Splits(corrupt_labels(train, config.label_noise, config.seed), test)


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
