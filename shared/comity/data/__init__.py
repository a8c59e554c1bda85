"""A node's own data: where it comes from, and which share of it is used."""

from comity.data.config import (
    ClassesPartition,
    ComplementaryPartition,
    DataConfig,
    DominatedPartition,
    ImbalancePartition,
    PartitionConfig,
    PowerLawPartition,
    UniformPartition,
    load_data,
)
from comity.data.dataset import Dataset, Splits, no_samples
from comity.data.noise import corrupt_labels
from comity.data.partitions import (
    class_range,
    complementary,
    dominated,
    imbalance,
    limit_per_class,
    power_law,
    uniform,
)
from comity.data.sources import load

__all__ = [
    "ClassesPartition",
    "ComplementaryPartition",
    "DataConfig",
    "Dataset",
    "DominatedPartition",
    "ImbalancePartition",
    "PartitionConfig",
    "PowerLawPartition",
    "Splits",
    "UniformPartition",
    "class_range",
    "complementary",
    "corrupt_labels",
    "dominated",
    "imbalance",
    "limit_per_class",
    "load",
    "load_data",
    "no_samples",
    "power_law",
    "uniform",
]
