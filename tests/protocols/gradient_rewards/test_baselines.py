"""What gradient rewards are compared with, as mathematics."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comity.protocols.gradient_rewards.studies.baselines import averaging, shares, values
from comity.randomness import generator

counts = st.lists(st.integers(1, 1000), min_size=2, max_size=6)


@given(counts)
def test_data_weights_go_by_sizes(sizes: list[int]) -> None:
    weights = averaging.data_weights(sizes)
    assert float(weights.sum()) == pytest.approx(1)
    assert weights.tolist() == pytest.approx([size / sum(sizes) for size in sizes])


def test_q_fair_step_with_q_0_is_the_mean_difference() -> None:
    differences = torch.randn(4, 7, generator=generator(1))
    step = averaging.q_fair_step(differences, [0.5, 1.0, 2.0, 4.0], 0.0, 0.1)
    torch.testing.assert_close(step, differences.mean(dim=0))


def test_q_fair_step_is_algorithm_2_of_li_et_al() -> None:
    differences = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    q, rate, losses = 2.0, 0.5, (3.0, 1.0)
    # L = 2; Δ = L × difference; h = q F^(q-1) |Δ|² + L F^q.
    curvature = (2 * 3 * 4 + 2 * 9) + (2 * 1 * 16 + 2 * 1)
    step = averaging.q_fair_step(differences, losses, q, rate)
    assert step.tolist() == pytest.approx([9 * 2 / curvature, 1 * 4 / curvature])


def test_q_pulls_towards_the_client_with_the_greater_loss() -> None:
    differences = torch.eye(2)
    steps = [averaging.q_fair_step(differences, (4.0, 1.0), q, 0.1) for q in (0.0, 0.5, 2.0)]
    ratios = [float(step[0] / step[1]) for step in steps]
    assert ratios[0] == pytest.approx(1)
    assert ratios == sorted(ratios)


def _worth_of(players: int, seed: int) -> values.Worth:
    table = torch.rand(2**players, generator=generator(seed), dtype=torch.float64)
    table[0] = 0.0
    return lambda coalition: float(table[sum(1 << player for player in coalition)])


@given(st.integers(1, 5), st.integers(0, 1000))
def test_shapley_values_are_means_over_all_orders(players: int, seed: int) -> None:
    worth = _worth_of(players, seed)
    expected = [0.0] * players
    for order in permutations(range(players)):
        for at, player in enumerate(order):
            before, after = tuple(sorted(order[:at])), tuple(sorted(order[: at + 1]))
            expected[player] += (worth(after) - worth(before)) / math.factorial(players)
    assert values.shapley_values(worth, players).tolist() == pytest.approx(expected)


@given(st.integers(1, 6), st.integers(0, 1000), st.integers(1, 20))
def test_sampled_shapley_values_are_efficient(players: int, seed: int, drawn: int) -> None:
    worth = _worth_of(players, seed)
    sampled = values.sampled_shapley_values(worth, players, drawn, generator(seed))
    assert float(sampled.sum()) == pytest.approx(worth(tuple(range(players))))


def test_sampled_shapley_values_come_close_to_exact_ones() -> None:
    worth = _worth_of(5, 3)
    sampled = values.sampled_shapley_values(worth, 5, 5000, generator(0))
    torch.testing.assert_close(sampled, values.shapley_values(worth, 5), atol=0.02, rtol=0)


@given(counts)
def test_shares_by_size_are_1_for_the_largest(sizes: list[int]) -> None:
    found = shares.by_size(sizes)
    assert float(found.max()) == 1
    assert found.tolist() == pytest.approx([size / max(sizes) for size in sizes])


def test_shares_by_value_give_nothing_for_negative_ones_and_all_where_none_is_positive() -> None:
    assert shares.by_value(torch.tensor([-1.0, 1.0, 2.0])).tolist() == [0.0, 0.5, 1.0]
    assert shares.by_value(torch.tensor([-1.0, 0.0])).tolist() == [1.0, 1.0]


def test_shares_by_distance_fall_with_it() -> None:
    differences = torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    assert shares.by_distance(differences, torch.zeros(2)).tolist() == [1.0, 0.5, 0.25]
    assert shares.by_distance(differences, differences[1]).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("clients", [1, 3, 5])
def test_everybody_has_a_turn(clients: int) -> None:
    rounds = [shares.in_turn(round, clients, generator(7)) for round in range(1, clients + 1)]
    assert all(float(each.sum()) == 1 for each in rounds)
    assert torch.stack(rounds).sum(dim=0).tolist() == [1.0] * clients


def test_reputation_follows_accuracy_and_those_who_are_out_stay_out() -> None:
    before = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0], dtype=torch.float64)
    after = shares.update_reputation(before, [0.2, 0.5, 0.8, 0.9])
    assert float(after.sum()) == pytest.approx(1)
    assert after.tolist() == [*sorted(after.tolist()[:3]), 0.0]
    # c = .5 / 3 + .5 sinh(5 v / 1.5), then brought to a sum of 1.
    plain = [0.5 / 3 + 0.5 * math.sinh(5 * value / 1.5) for value in (0.2, 0.5, 0.8)]
    assert after.tolist()[:3] == pytest.approx([each / sum(plain) for each in plain])


def test_low_reputations_are_expelled() -> None:
    left = shares.expelled(torch.tensor([0.05, 0.35, 0.6], dtype=torch.float64))
    assert left.tolist() == pytest.approx([0.0, 0.35 / 0.95, 0.6 / 0.95])
    assert shares.expelled(torch.tensor([0.5, 0.5], dtype=torch.float64)).tolist() == [0.5, 0.5]
