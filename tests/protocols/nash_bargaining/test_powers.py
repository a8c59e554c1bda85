"""How powers move: at any rate they stay powers, and go to who helps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from comity.protocols.nash_bargaining.powers import initial_powers, updated_powers
from comity.training.weighting import weighting

rates = st.floats(0, 1e6)
entries = st.lists(st.floats(-1e30, 1e30) | st.just(math.nan), min_size=2, max_size=8)
FLOOR = 1e-3


def drawn(players: int, seed: int) -> Tensor:
    """Powers that sum to 1, of which some are at the floor."""
    draws = torch.rand(players, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    free = 1 - FLOOR * players
    return FLOOR + free * torch.softmax(30 * draws, 0)


def assert_powers(power: Tensor, total: float) -> None:
    assert bool(power.isfinite().all())
    assert float(power.min()) >= FLOOR * (1 - 1e-9)
    assert math.isclose(float(power.sum()), total, rel_tol=1e-9)


@given(entries, st.integers(0, 2**32), rates)
def test_powers_stay_powers_at_any_rate(found: list[float], seed: int, rate: float) -> None:
    power, hypergradient = drawn(len(found), seed), torch.tensor(found, dtype=torch.float64)
    moved = updated_powers(power, hypergradient, rate, FLOOR)
    assert moved[0] == power[0]
    assert_powers(moved, 1.0)
    assert_powers(updated_powers(power, hypergradient, rate, FLOOR, most_main=0.6), 1.0)
    capped = updated_powers(power, hypergradient, rate, FLOOR, most_main=0.6)
    assert float(capped[0]) <= 0.6 * (1 + 1e-9)


@given(st.integers(0, 2**32), st.floats(0.5, 1e6))
def test_power_goes_to_who_helps_more(seed: int, rate: float) -> None:
    power = drawn(4, seed)
    # How the loss changes with each power: the third lowers it, the fourth raises it.
    moved = updated_powers(power, torch.tensor([0.0, 0.0, -1.0, 1.0], dtype=torch.float64), rate, FLOOR)
    assert float(moved[2]) >= float(power[2]) * (1 - 1e-9)
    assert float(moved[3]) <= float(power[3]) * (1 + 1e-9)


def test_at_the_greatest_rate_the_best_has_all_that_there_is() -> None:
    moved = updated_powers(initial_powers(3, 0.25), torch.tensor([0.0, -1.0, 0.5, 1.0]).double(), 1e6, FLOOR)
    assert moved.tolist() == pytest.approx([0.25, 0.75 - 2 * FLOOR, FLOOR, FLOOR])


def test_who_alone_bargains_has_all_the_power() -> None:
    method = weighting("auxinash", 1)
    assert method.state_dict()["powers"].tolist() == [1.0]
    assert method.weights(torch.ones(1), torch.full((1, 1), 4.0, dtype=torch.float64)).tolist() == pytest.approx(
        [1 / (2 * math.sqrt(1.01))]
    )
