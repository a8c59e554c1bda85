"""A node's own data: where it comes from, and which share of it is used."""

from comity.data.config import DataConfig, ImbalancePartition, PartitionConfig, UniformPartition, load_data
from comity.data.dataset import Dataset, Splits, no_samples
from comity.data.partitions import imbalance, limit_per_class, uniform
from comity.data.sources import load

__all__ = [
    "DataConfig",
    "Dataset",
    "ImbalancePartition",
    "PartitionConfig",
    "Splits",
    "UniformPartition",
    "imbalance",
    "limit_per_class",
    "load",
    "load_data",
    "no_samples",
    "uniform",
]
