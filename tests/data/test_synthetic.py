"""The two synthetic examples."""

from __future__ import annotations

import pytest
import torch

from comity.data import load
from comity.errors import InvalidValue


def test_the_classes_are_as_far_apart_as_the_paper_has_them() -> None:
    splits = load("synthetic:fig2", root=None, seed=4, image_size=None)
    train, test = splits.train, splits.test
    assert test is not None
    assert torch.bincount(train.labels).tolist() == [50, 50]
    for label, mean in ((0, [-1.0, 1.0]), (1, [1.0, -1.0])):
        points = test.inputs[test.labels == label]
        assert torch.allclose(points.mean(0), torch.tensor(mean), atol=0.06)
        assert torch.allclose(points.T.cov(), 2.25 * torch.eye(2), atol=0.1)
    # The best classifier there is: the sign of x - y.
    best = ((test.inputs[:, 0] > test.inputs[:, 1]).long() == test.labels).float().mean()
    assert float(best) == pytest.approx(0.827, abs=0.01)


def test_points_come_from_the_seed() -> None:
    one, same, other = (load("synthetic:fig2", root=None, seed=seed, image_size=None).train for seed in (1, 1, 2))
    assert torch.equal(one.inputs, same.inputs)
    assert not torch.equal(one.inputs, other.inputs)


def test_other_names_are_refused() -> None:
    with pytest.raises(InvalidValue, match="expected fig2, received 'fig3'"):
        load("synthetic:fig3", root=None, seed=0, image_size=None)
