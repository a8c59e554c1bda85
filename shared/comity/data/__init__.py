"""A node's own data: where it comes from, and which share of it is used."""

from comity.data.config import (
    ComplementaryPartition,
    DataConfig,
    DominatedPartition,
    ImbalancePartition,
    PartitionConfig,
    UniformPartition,
    load_data,
)
from comity.data.dataset import Dataset, Splits
from comity.data.partitions import complementary, dominated, imbalance, limit_per_class, uniform
from comity.data.sources import load

__all__ = [
    "ComplementaryPartition",
    "DataConfig",
    "Dataset",
    "DominatedPartition",
    "ImbalancePartition",
    "PartitionConfig",
    "Splits",
    "UniformPartition",
    "complementary",
    "dominated",
    "imbalance",
    "limit_per_class",
    "load",
    "load_data",
    "uniform",
]
