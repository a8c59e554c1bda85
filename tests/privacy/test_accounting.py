"""What noise is worth: the accountant, the paper's formula beside it, and budgets that cannot be kept."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.errors import InvalidValue
from comity.privacy import NOT_COVERED, Mechanism, account, for_total, paper_composition

pytest.importorskip("opacus")

LEARNER = {"sampling_rate": 256 / 9250, "steps": 5400}
"""CIFAR-10 at γ = 0.3, ten rounds of T = 540."""


@pytest.mark.parametrize(("epsilon", "noise"), [(1, 4.80), (5, 0.96), (10, 0.48)])
def test_the_papers_preset(epsilon: float, noise: float) -> None:
    mechanism = Mechanism.per_step(epsilon)
    assert mechanism.noise_multiplier == pytest.approx(noise, abs=0.005)
    assert mechanism.noise_multiplier**2 == pytest.approx(2 * epsilon**-2 * math.log(1e5))
    assert (mechanism.delta, mechanism.clipping_norm) == (1e-5, 1.0)


def test_both_accounts_of_the_papers_learner() -> None:
    guarantee = account(Mechanism.per_step(1), **LEARNER)
    assert guarantee.epsilon == pytest.approx(1.70, abs=0.02)
    assert guarantee.delta == 1e-5
    assert guarantee.paper_epsilon == pytest.approx(13.8, abs=0.05)
    assert guarantee.paper_delta == pytest.approx(0.0015, abs=1e-5)
    assert "not covered" in NOT_COVERED


def test_the_papers_composition() -> None:
    assert paper_composition(2.0, math.exp(-4), sampling_rate=0.5, steps=9) == pytest.approx((12.0, 4.5 * math.exp(-4)))


def test_no_step_costs_nothing() -> None:
    assert account(Mechanism(1.0), sampling_rate=0.1, steps=0).epsilon == 0


@pytest.mark.slow
@settings(max_examples=6)
@given(noise=st.floats(0.6, 20), rate=st.floats(0.001, 1), steps=st.integers(1, 500))
def test_more_noise_and_fewer_steps_cost_less(noise: float, rate: float, steps: int) -> None:
    epsilon = account(Mechanism(noise), sampling_rate=rate, steps=steps).epsilon
    slack = 0.03 * max(1, epsilon)
    assert 0 <= epsilon < math.inf
    assert account(Mechanism(1.5 * noise), sampling_rate=rate, steps=steps).epsilon <= epsilon + slack
    assert account(Mechanism(noise), sampling_rate=rate, steps=2 * steps).epsilon >= epsilon - slack


@pytest.mark.parametrize("noise", [0.001, 0.1, 0.3])
def test_too_little_noise_has_a_large_and_finite_price(noise: float) -> None:
    assert 100 < account(Mechanism(noise), sampling_rate=0.1, steps=1000).epsilon < math.inf


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.5, 3.0, 20.0])
def test_a_total_is_kept_and_used_up(target: float) -> None:
    mechanism = for_total(target, 1e-5, clipping_norm=2.0, **LEARNER)
    assert mechanism.clipping_norm == 2.0
    got = account(mechanism, **LEARNER).epsilon
    assert 0.95 * target < got <= target


def test_a_budget_that_no_noise_keeps() -> None:
    with pytest.raises(InvalidValue, match=r"No noise keeps .* received .* at best"):
        for_total(1e-6, 1e-5, **LEARNER)


@pytest.mark.parametrize("epsilon", [0, -1, 101, math.inf, math.nan])
def test_epsilon_out_of_range(epsilon: float) -> None:
    for make in (Mechanism.per_step, lambda value: for_total(value, 1e-5, **LEARNER)):
        with pytest.raises(InvalidValue, match="epsilon: expected above 0, at most 100"):
            make(epsilon)


@pytest.mark.parametrize("delta", [0, 1, -0.1, math.nan])
def test_delta_out_of_range(delta: float) -> None:
    with pytest.raises(InvalidValue, match="delta: expected above 0, below 1"):
        Mechanism.per_step(1, delta)


@pytest.mark.parametrize(
    "numbers", [{"noise_multiplier": 0}, {"noise_multiplier": math.nan}, {"noise_multiplier": 1, "clipping_norm": 0}]
)
def test_noise_out_of_range(numbers: dict[str, float]) -> None:
    with pytest.raises(InvalidValue):
        Mechanism(**numbers)


@pytest.mark.parametrize(
    "training",
    [{"sampling_rate": 0.0, "steps": 1}, {"sampling_rate": 1.1, "steps": 1}, {"sampling_rate": 0.5, "steps": -1}],
)
def test_trainings_that_cannot_be(training: dict[str, float]) -> None:
    with pytest.raises(InvalidValue):
        account(Mechanism(1.0), **training)  # type: ignore[arg-type]
