"""From a node's configuration to its own share of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from comity.data import DataConfig, ImbalancePartition, UniformPartition, load, load_data
from comity.errors import InvalidValue


def config(**settings: Any) -> DataConfig:
    return DataConfig.model_validate({"source": "digits", "per_class": 20} | settings)


def test_the_demo_shares() -> None:
    whole = load("digits", root=None, seed=0, image_size=None)
    shares = {
        share: load_data(config(partition={"name": "imbalance", "gamma": 0.3, "share": share}))
        for share in ("learner", "provider")
    }
    assert {share: len(splits.train) for share, splits in shares.items()} == {"learner": 37, "provider": 100}
    for splits in shares.values():
        assert splits.test is not None
        assert whole.test is not None
        assert torch.equal(splits.test.inputs, whole.test.inputs)
    images = torch.cat([splits.train.inputs for splits in shares.values()]).flatten(1)
    assert len(torch.unique(images, dim=0)) == 137


def test_a_uniform_share() -> None:
    shares = [load_data(config(partition={"name": "uniform", "parties": 3, "index": index})) for index in range(3)]
    assert [len(splits.train) for splits in shares] == [67, 67, 66]


def test_shares_that_grow_and_shares_with_ever_more_classes() -> None:
    grow = [load_data(config(partition={"name": "power-law", "parties": 3, "index": index})) for index in range(3)]
    assert [len(splits.train) for splits in grow] == [9, 66, 125]
    classes = [load_data(config(partition={"name": "classes", "parties": 3, "index": index})) for index in range(3)]
    assert [len(splits.train.labels.unique()) for splits in classes] == [1, 5, 10]
    assert {len(splits.train) for splits in classes} == {15}


def test_label_noise_is_of_the_share_and_leaves_the_test_split_alone() -> None:
    share = {"name": "uniform", "parties": 3, "index": 1}
    clean, noisy = load_data(config(partition=share)), load_data(config(partition=share, label_noise=0.4))
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    assert int((clean.train.labels != noisy.train.labels).sum()) == round(0.4 * 67)
    assert clean.test is not None
    assert noisy.test is not None
    assert torch.equal(clean.test.labels, noisy.test.labels)


def test_without_a_partition_everything_is_kept() -> None:
    assert len(load_data(DataConfig(source="digits")).train) == 1347
    assert len(load_data(config()).train) == 200


def test_an_empty_share_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=np.zeros((1, 2)), y=np.array([0]))
    provider = {"name": "imbalance", "gamma": 0, "share": "provider"}
    with pytest.raises(InvalidValue, match="No sample is left"):
        load_data(config(source="npz:one.npz", root=tmp_path, partition=provider))


def test_partitions_are_told_apart_by_name() -> None:
    one = config(partition={"name": "uniform", "parties": 2, "index": 1, "seed": 4}).partition
    other = config(partition={"name": "imbalance", "gamma": 1, "share": "learner"}).partition
    assert one == UniformPartition(name="uniform", parties=2, index=1, seed=4)
    assert other == ImbalancePartition(name="imbalance", gamma=1.0, share="learner", seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sauce": "digits"},
        {"seed": -1},
        {"seed": 2**32},
        {"image_size": 0},
        {"per_class": 0},
        {"words": 0},
        {"label_noise": -0.1},
        {"label_noise": 1.1},
        {"partition": {"name": "power-law", "parties": 2, "index": 0, "exponent": 0}},
        {"partition": {"name": "classes", "parties": 2, "index": 0, "samples": 0}},
        {"partition": {"name": "dirichlet"}},
        {"partition": {"name": "uniform", "parties": 0, "index": 0}},
        {"partition": {"name": "uniform", "parties": 2, "index": -1}},
        {"partition": {"name": "uniform", "parties": 2, "index": 0, "gamma": 1}},
        {"partition": {"name": "imbalance", "gamma": float("nan"), "share": "learner"}},
        {"partition": {"name": "imbalance", "gamma": 1.5, "share": "learner"}},
        {"partition": {"name": "imbalance", "gamma": 1, "share": "server"}},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**wrong)


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValidationError):
        config().seed = 3
