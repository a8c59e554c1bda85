"""A node's own data: where it comes from, and which share of it is used."""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.data.config import (
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
    from comity.data.dataset import Dataset, Splits, no_samples
    from comity.data.loading import load_data, read_source
    from comity.data.meaning import Meaning
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
else:
    __getattr__ = lazily(
        __name__,
        {
            "config": [
                "ClassesPartition",
                "ComplementaryPartition",
                "DataConfig",
                "DominatedPartition",
                "ImbalancePartition",
                "PartitionConfig",
                "PowerLawPartition",
                "SplitConfig",
                "SplitName",
                "UniformPartition",
            ],
            "dataset": ["Dataset", "Splits", "no_samples"],
            "loading": ["load_data", "read_source"],
            "meaning": ["Meaning"],
            "noise": ["corrupt_labels"],
            "partitions": [
                "class_range",
                "complementary",
                "dominated",
                "imbalance",
                "limit_per_class",
                "power_law",
                "uniform",
            ],
            "sources": ["load"],
        },
    )

__all__ = [
    "ClassesPartition",
    "ComplementaryPartition",
    "DataConfig",
    "Dataset",
    "DominatedPartition",
    "ImbalancePartition",
    "Meaning",
    "PartitionConfig",
    "PowerLawPartition",
    "SplitConfig",
    "SplitName",
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
    "read_source",
    "uniform",
]
