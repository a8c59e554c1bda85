"""Shares are disjoint, of the size they should be, and each party finds its own alone."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from comity.data import class_range, complementary, dominated, imbalance, limit_per_class, power_law, uniform
from comity.errors import InvalidValue

seeds = st.integers(min_value=-(2**70), max_value=2**70)
labels_of = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)
any_labels = settings(deadline=None, max_examples=60)


def assert_disjoint(shares: list[Tensor]) -> None:
    together = torch.cat(shares)
    assert len(set(together.tolist())) == len(together)


def assert_ascending(share: Tensor) -> None:
    assert share.dtype == torch.int64
    assert torch.equal(share, share.sort().values)


@any_labels
@given(labels_of, st.integers(1, 20))
def test_limit_keeps_the_first_of_each_class(labels: Tensor, per_class: int) -> None:
    kept = limit_per_class(labels, per_class)
    assert_ascending(kept)
    seen = dict.fromkeys(range(5), 0)
    expected = []
    for index, label in enumerate(labels.tolist()):
        seen[label] += 1
        if seen[label] <= per_class:
            expected.append(index)
    assert kept.tolist() == expected


@any_labels
@given(labels_of, st.data(), seeds)
def test_uniform_shares_are_disjoint_equal_and_cover(labels: Tensor, data: st.DataObject, seed: int) -> None:
    parties = data.draw(st.integers(1, len(labels)))
    shares = [uniform(labels, parties=parties, index=index, seed=seed) for index in range(parties)]
    for share in shares:
        assert_ascending(share)
    assert_disjoint(shares)
    assert sum(map(len, shares)) == len(labels)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@any_labels
@given(labels_of, st.data(), seeds, st.floats(0.1, 10))
def test_power_law_shares_are_disjoint_growing_and_cover(
    labels: Tensor, data: st.DataObject, seed: int, exponent: float
) -> None:
    parties = data.draw(st.integers(1, len(labels)))
    shares = [power_law(labels, parties=parties, index=index, seed=seed, exponent=exponent) for index in range(parties)]
    for share in shares:
        assert_ascending(share)
    assert_disjoint(shares)
    sizes = [len(share) for share in shares]
    assert sum(sizes) == len(labels)
    assert min(sizes) >= 1
    # Ends are rounded, so that a share may be one off.
    assert all(earlier <= later + 1 for earlier, later in itertools.pairwise(sizes))


def test_power_law_sizes() -> None:
    labels = torch.zeros(6000, dtype=torch.int64)
    sizes = [len(power_law(labels, parties=5, index=index, seed=0)) for index in range(5)]
    first, last = 0.01 ** (1 / 1.65911332899), 0.99 ** (1 / 1.65911332899)
    expected = [first + index / 4 * (last - first) for index in range(5)]
    assert sizes == pytest.approx([6000 * each / sum(expected) for each in expected], abs=2)


@any_labels
@given(st.data(), seeds)
def test_classes_shares_have_one_size_and_ever_more_classes(data: st.DataObject, seed: int) -> None:
    classes, parties = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    sizes = data.draw(st.lists(st.integers(20, 40), min_size=classes, max_size=classes))
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed % 2**32))]
    shares = [class_range(labels, parties=parties, index=index, seed=seed) for index in range(parties)]
    for share in shares:
        assert_ascending(share)
    assert_disjoint(shares)
    assert len({len(share) for share in shares}) == 1
    held = [labels[share].unique().tolist() for share in shares]
    for index, each in enumerate(held):
        count = classes if parties == 1 else 1 + math.floor(index * (classes - 1) / (parties - 1))
        assert each == list(range(min(count, len(shares[0]))))
        counts = torch.bincount(labels[shares[index]])
        assert int(counts.max() - counts.min()) <= 1
    most = len(shares[0])
    with pytest.raises(InvalidValue, match=f"1 to {most}"):
        class_range(labels, parties=parties, index=0, seed=seed, samples=most + 1)


def test_classes_as_in_the_paper() -> None:
    labels = torch.arange(10).repeat(1200)
    shares = [class_range(labels, parties=5, index=index, seed=0, samples=600) for index in range(5)]
    assert [len(labels[share].unique()) for share in shares] == [1, 3, 5, 7, 10]
    assert {len(share) for share in shares} == {600}


@any_labels
@given(labels_of, st.floats(0, 1), seeds)
def test_imbalance_has_the_papers_sizes(labels: Tensor, gamma: float, seed: int) -> None:
    provider = imbalance(labels, gamma=gamma, share="provider", seed=seed)
    learner = imbalance(labels, gamma=gamma, share="learner", seed=seed)
    assert_ascending(provider)
    assert_ascending(learner)
    assert_disjoint([provider, learner])
    present, counts = torch.unique(labels, return_counts=True)
    major = int(present[counts.argmin()])
    major_size = int(counts.min()) - int(counts.min()) // 2
    for label, count in zip(present.tolist(), counts.tolist(), strict=True):
        assert int((labels[provider] == label).sum()) == count // 2
        wanted = major_size if label == major else round(gamma * major_size)
        assert int((labels[learner] == label).sum()) == wanted


def test_the_demo_sizes() -> None:
    labels = torch.arange(10).repeat(20)
    assert len(imbalance(labels, gamma=0.3, share="provider", seed=0)) == 100
    learner = imbalance(labels, gamma=0.3, share="learner", seed=0)
    assert torch.bincount(labels[learner]).tolist() == [10] + [3] * 9


def test_a_learner_with_gamma_0_has_one_class_and_with_gamma_1_is_the_balanced_rest() -> None:
    labels = torch.arange(3).repeat(6)
    assert set(labels[imbalance(labels, gamma=0, share="learner", seed=0)].tolist()) == {0}
    shares = [imbalance(labels, gamma=1, share=share, seed=0) for share in ("learner", "provider")]
    assert torch.equal(torch.cat(shares).sort().values, torch.arange(18))


def test_the_major_class_is_the_smallest() -> None:
    labels = torch.tensor([0] * 8 + [1] * 4 + [2] * 4)
    assert torch.bincount(labels[imbalance(labels, gamma=0.5, share="learner", seed=0)]).tolist() == [1, 2, 1]


def test_shares_depend_on_the_seed_and_not_on_global_state() -> None:
    labels = torch.arange(10).repeat(20)
    before = torch.get_rng_state()

    def shares(seed: int) -> list[Tensor]:
        return [
            uniform(labels, parties=2, index=0, seed=seed),
            imbalance(labels, gamma=0.5, share="learner", seed=seed),
            power_law(labels, parties=2, index=0, seed=seed),
            class_range(labels, parties=2, index=0, seed=seed),
        ]

    one = shares(1)
    torch.rand(1)
    same, other = shares(1), shares(2)
    torch.set_rng_state(before)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_share_is_a_random_one() -> None:
    share = uniform(torch.zeros(1000, dtype=torch.int64), parties=2, index=0, seed=0)
    assert 200 < int((share < 500).sum()) < 300


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan"), float("inf")])
def test_gamma_out_of_range_is_refused(gamma: float) -> None:
    with pytest.raises(InvalidValue, match="gamma"):
        imbalance(torch.tensor([0, 1]), gamma=gamma, share="learner", seed=0)


def test_wrong_arguments_are_refused() -> None:
    labels, none = torch.tensor([0, 1]), torch.tensor([], dtype=torch.int64)
    with pytest.raises(InvalidValue, match="share"):
        imbalance(labels, gamma=1, share="server", seed=0)  # type: ignore[arg-type]
    for parties, index in ((0, 0), (3, 0), (2, 2), (2, -1)):
        for share in (uniform, power_law, class_range):
            with pytest.raises(InvalidValue):
                share(labels, parties=parties, index=index, seed=0)
    for exponent in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidValue, match="exponent"):
            power_law(labels, parties=2, index=0, seed=0, exponent=exponent)
    for samples in (0, -1, 3):
        with pytest.raises(InvalidValue, match="some of the classes"):
            class_range(labels, parties=1, index=0, seed=0, samples=samples)
    with pytest.raises(InvalidValue, match="class"):
        limit_per_class(labels, 0)
    with pytest.raises(InvalidValue, match="no sample"):
        limit_per_class(none, 1)
    with pytest.raises(InvalidValue, match="no sample"):
        imbalance(none, gamma=1, share="learner", seed=0)


@any_labels
@given(labels_of, st.floats(0, 1), seeds)
def test_a_provider_of_other_categories_lacks_the_major_class_alone(labels: Tensor, gamma: float, seed: int) -> None:
    usual = imbalance(labels, gamma=gamma, share="provider", seed=seed)
    without = imbalance(labels, gamma=gamma, share="provider", seed=seed, without_major=True)
    present, counts = torch.unique(labels, return_counts=True)
    major = int(present[counts.argmin()])
    assert torch.equal(without, usual[labels[usual] != major])
    learner = imbalance(labels, gamma=gamma, share="learner", seed=seed, without_major=True)
    assert torch.equal(learner, imbalance(labels, gamma=gamma, share="learner", seed=seed))


@any_labels
@given(labels_of, st.floats(0, 1), seeds)
def test_complementary_shares_are_all_samples(labels: Tensor, fraction: float, seed: int) -> None:
    shares = [complementary(labels, fraction=fraction, share=share, seed=seed) for share in ("learner", "provider")]
    for share in shares:
        assert_ascending(share)
    assert torch.equal(torch.cat(shares).sort().values, torch.arange(len(labels)))


def test_complementary_shares_hold_90_and_10_percent() -> None:
    labels = torch.arange(2).repeat(50)
    for share, counts in (("learner", [45, 5]), ("provider", [5, 45])):
        assert torch.bincount(labels[complementary(labels, fraction=0.9, share=share, seed=1)]).tolist() == counts


@pytest.mark.parametrize(("learner", "major", "counts"), [(90, 1.0, [90] + [0] * 9), (100, 0.5, [50] + [5] * 9)])
def test_one_class_dominates_the_learner(learner: int, major: float, counts: list[int]) -> None:
    labels = torch.arange(10).repeat(100)
    settings = {"provider": 100, "learner": learner, "major": major, "seed": 3}
    shares = [dominated(labels, share=share, **settings) for share in ("provider", "learner")]
    assert_disjoint(shares)
    assert torch.bincount(labels[shares[0]]).tolist() == [10] * 10
    assert torch.bincount(labels[shares[1]], minlength=10).tolist() == counts


@pytest.mark.parametrize(
    "changes", [{"major": 1.5}, {"provider": 9}, {"learner": 0}, {"share": "both"}, {"provider": 910, "learner": 100}]
)
def test_dominated_shares_that_cannot_be(changes: dict[str, Any]) -> None:
    settings = {"provider": 100, "learner": 10, "major": 1.0, "share": "learner", "seed": 0}
    with pytest.raises(InvalidValue):
        dominated(torch.arange(10).repeat(100), **(settings | changes))


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_fractions_out_of_range(fraction: float) -> None:
    with pytest.raises(InvalidValue):
        complementary(torch.arange(4), fraction=fraction, share="learner", seed=0)
