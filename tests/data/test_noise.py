"""Labels are corrupted to the share that is asked for, and never to what they were."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comity.data import DataConfig, Dataset, corrupt_labels, load_data
from comity.errors import InvalidValue


def dataset(samples: int, classes: int) -> Dataset:
    return Dataset(torch.zeros(samples, 1), torch.arange(samples) % classes, scale=1.0, classes=classes)


@given(st.integers(1, 80), st.integers(2, 6), st.floats(0, 1), st.integers(-(2**70), 2**70))
def test_exactly_the_share_gets_the_label_of_another_class(samples: int, classes: int, share: float, seed: int) -> None:
    clean = dataset(samples, classes)
    before = clean.labels.clone()
    noisy = corrupt_labels(clean, share, seed)
    assert torch.equal(clean.labels, before)
    assert int((noisy.labels != clean.labels).sum()) == round(share * samples)
    assert bool(((noisy.labels >= 0) & (noisy.labels < classes)).all())
    assert torch.equal(corrupt_labels(clean, share, seed).labels, noisy.labels)


def test_a_larger_share_corrupts_the_same_and_more() -> None:
    clean = dataset(100, 5)
    less, more = (corrupt_labels(clean, share, 3).labels for share in (0.2, 0.6))
    corrupted = less != clean.labels
    assert torch.equal(less[corrupted], more[corrupted])


def test_every_other_class_is_as_likely() -> None:
    clean = Dataset(torch.zeros(4000, 1), torch.full((4000,), 2), scale=1.0, classes=5)
    counts = torch.bincount(corrupt_labels(clean, 1.0, 0).labels, minlength=5)
    assert int(counts[2]) == 0
    assert bool((counts[[0, 1, 3, 4]] > 900).all())


def test_the_seed_decides() -> None:
    clean = dataset(100, 5)
    assert not torch.equal(corrupt_labels(clean, 0.5, 1).labels, corrupt_labels(clean, 0.5, 2).labels)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InvalidValue, match="share"):
        corrupt_labels(dataset(4, 2), share, 0)


def test_one_class_has_no_other() -> None:
    with pytest.raises(InvalidValue, match="2 classes"):
        corrupt_labels(dataset(4, 1), 0.5, 0)
    assert len(corrupt_labels(dataset(4, 1), 0.0, 0)) == 4


def test_classes_get_other_labels() -> None:
    found = load_data(DataConfig(source="digits", relabel=(0, 1) * 5))
    plain = load_data(DataConfig(source="digits"))
    assert found.train.classes == 2
    assert torch.equal(found.train.labels, plain.train.labels % 2)
    assert found.test is not None
    assert plain.test is not None
    assert torch.equal(found.test.labels, plain.test.labels % 2)
    with pytest.raises(InvalidValue, match=r"expected 10 in data\.relabel, one for each class, received 2"):
        load_data(DataConfig(source="digits", relabel=(0, 1)))


@pytest.mark.parametrize("change", [{"relabel": [1, 0]}, {"classes": {"0": "benign", "1": "malignant"}}])
def test_a_pool_without_labels_has_the_classes_of_the_training_samples(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "pool.csv").write_text("a,b,c\n1,2,3\n4,5,6\n")
    (tmp_path / "known.csv").write_text("a,b,c,ill\n" + "1,2,3,0\n2,3,4,1\n" * 4)
    table = {"target": "ill", "columns": ["a", "b", "c"]}
    pool = {"pool": {"source": "csv:pool.csv", "labelled": False}}
    values = {"source": "csv:known.csv", "root": tmp_path, "table": table, "splits": pool, **change}
    found = load_data(DataConfig.model_validate(values))
    unlabelled = found.split("pool")
    assert unlabelled.labels.tolist() == [-1, -1]
    assert unlabelled.kind == found.train.kind
    assert found.train.labels.tolist() == ([1, 0] * 4 if "relabel" in change else [0, 1] * 4)
