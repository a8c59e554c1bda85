"""The bargaining solution against cases solved with 60 digits, and the properties that it has to have."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from comity.errors import InvalidValue, NonFiniteValue
from comity.protocols.nash_bargaining import bargain, gram_matrix, power_gradient, power_jacobian
from comity.protocols.nash_bargaining.newton import minimize

GOLDEN: Any = np.load(Path(__file__).with_name("nash_bargaining.npz"), allow_pickle=False)
CASES = range(len(GOLDEN["name"]))
TIGHT, NEARLY_OPPOSITE = 1e-13, 2e-10

seeds = st.integers(0, 2**32)
sizes = st.sampled_from([2, 3, 5, 8])


def golden(case: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    players = int(GOLDEN["N"][case])
    gram, jacobian = (torch.from_numpy(GOLDEN[name][case, :players, :players]) for name in ("K", "dalpha_dp"))
    power, alpha = (torch.from_numpy(GOLDEN[name][case, :players]) for name in ("p", "alpha"))
    return gram, power, alpha, jacobian


def drawn(seed: int, players: int, parameters: int = 12) -> tuple[Tensor, Tensor]:
    """Gradients of different lengths, and powers, float64."""
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(players, parameters, dtype=torch.float64, generator=generator)
    gradients *= 10 ** torch.randn(players, 1, dtype=torch.float64, generator=generator)
    power = torch.rand(players, dtype=torch.float64, generator=generator) + 0.05
    return gradients, power / power.sum()


def assert_near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("case", CASES, ids=GOLDEN["name"])
def test_weights_are_those_of_60_digits(case: int) -> None:
    gram, power, alpha, jacobian = golden(case)
    found = bargain(gram, power)
    tolerance = NEARLY_OPPOSITE if "1-1e-6" in str(GOLDEN["name"][case]) else TIGHT
    assert float((found.alpha / alpha - 1).abs().max()) <= tolerance
    assert int(found.iterations) <= 11
    assert not found.degenerate
    assert_near(power_jacobian(gram, power, found.alpha), jacobian, tolerance)


@given(seeds, sizes)
def test_the_solution_is_one_and_the_update_has_the_length_of_the_powers(seed: int, players: int) -> None:
    gradients, power = drawn(seed, players)
    gram = gram_matrix(gradients)
    alpha = bargain(gram, power).alpha
    assert_near(alpha * (gram @ alpha), power, 1e-9)
    assert math.isclose(float((alpha @ gradients).square().sum()), float(power.sum()), rel_tol=1e-9)


@given(seeds, sizes)
def test_scaling_a_gradient_changes_nothing_of_the_update(seed: int, players: int) -> None:
    gradients, power = drawn(seed, players)
    scales = 10 ** torch.linspace(-3, 3, players, dtype=torch.float64)
    one = bargain(gram_matrix(gradients), power).alpha
    other = bargain(gram_matrix(scales[:, None] * gradients), power).alpha
    assert float((other * scales / one - 1).abs().max()) <= 1e-9


@given(seeds, sizes)
def test_the_order_of_players_changes_nothing(seed: int, players: int) -> None:
    gradients, power = drawn(seed, players)
    order = torch.randperm(players, generator=torch.Generator().manual_seed(seed))
    one = bargain(gram_matrix(gradients), power).alpha
    other = bargain(gram_matrix(gradients[order]), power[order]).alpha
    assert float((other / one[order] - 1).abs().max()) <= 1e-9


@given(seeds, sizes)
def test_no_player_is_made_worse(seed: int, players: int) -> None:
    gradients, power = drawn(seed, players)
    update = bargain(gram_matrix(gradients), power).alpha @ gradients
    assert bool((gradients @ update > 0).all())


@given(seeds, st.sampled_from([0.0, 1e-2]))
def test_derivatives_agree_with_finite_differences(seed: int, ridge: float) -> None:
    gradients, power = drawn(seed, 4)
    gram = gram_matrix(gradients / gradients.norm(dim=1, keepdim=True))
    alpha = bargain(gram, power, ridge).alpha
    jacobian = power_jacobian(gram, power, alpha, ridge)
    step = 1e-6
    for player in range(4):
        change = torch.zeros(4, dtype=torch.float64)
        change[player] = step
        difference = bargain(gram, power + change, ridge).alpha - bargain(gram, power - change, ridge).alpha
        assert_near(jacobian[:, player], difference / (2 * step), 1e-4)
    vector = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert_near(power_gradient(gram, power, alpha, vector, ridge), jacobian.T @ vector, 1e-9)


def test_a_batch_is_solved_as_its_problems_are() -> None:
    drawings = [drawn(seed, 3) for seed in range(12)]
    grams = torch.stack([gram_matrix(gradients) for gradients, _ in drawings]).view(3, 4, 3, 3)
    powers = torch.stack([power for _, power in drawings]).view(3, 4, 3)
    together = bargain(grams, powers)
    assert together.alpha.shape == (3, 4, 3)
    assert together.iterations.shape == together.residual.shape == together.degenerate.shape == (3, 4)
    for row in range(3):
        for column in range(4):
            alone = bargain(grams[row, column], powers[row, column])
            assert_near(together.alpha[row, column], alone.alpha, 1e-12)
    assert_near(bargain(grams, powers[0, 0]).alpha[0, 0], bargain(grams[0, 0], powers[0, 0]).alpha, 1e-12)


def test_who_has_no_power_or_no_gradient_gets_no_weight() -> None:
    gradients, _ = drawn(0, 3)
    gram = gram_matrix(gradients)
    away = bargain(gram, [0.5, 0.0, 0.5])
    assert away.alpha[1] == 0
    assert not away.degenerate
    rest = bargain(gram[[0, 2]][:, [0, 2]], [0.5, 0.5]).alpha
    assert_near(away.alpha[[0, 2]], rest, 1e-12)
    gradients[1] = 0
    silent = bargain(gram_matrix(gradients), [0.25, 0.5, 0.25])
    assert silent.alpha[1] == 0
    assert silent.degenerate
    assert math.isclose(float((silent.alpha @ gradients).square().sum()), 0.5)
    assert torch.equal(power_jacobian(gram, [0.5, 0.0, 0.5], away.alpha)[1], torch.zeros(3, dtype=torch.float64))


def test_nothing_bargains_for_zero_gradients() -> None:
    found = bargain(torch.zeros(2, 2), [0.5, 0.5])
    assert found.degenerate
    assert torch.equal(found.alpha, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("ridge", [0.0, 1e-2])
@pytest.mark.parametrize("power", [(0.5, 0.5), (0.2, 0.8)])
def test_opposites_are_reported_and_balanced(power: tuple[float, float], ridge: float) -> None:
    gradient = torch.tensor([1.0, -2.0], dtype=torch.float64)
    found = bargain(gram_matrix(torch.stack([gradient, -3 * gradient])), power, ridge)
    assert found.degenerate
    assert bool(found.alpha.isfinite().all())
    update = found.alpha[0] * gradient - 3 * found.alpha[1] * gradient
    assert float(update.norm()) < 0.1
    one = bargain(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).expand(2, 2, 2), [[0.5, 0.5], [0.3, 0.7]])
    assert one.degenerate.tolist() == [True, True]


def test_duplicates_are_no_trouble() -> None:
    found = bargain(torch.ones(3, 3), [0.2, 0.3, 0.5])
    assert not found.degenerate
    assert_near(found.alpha, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64), 1e-9)


_GOOD = [[1.0, 0.2], [0.2, 1.0]]


@pytest.mark.parametrize(
    ("gram", "power", "says"),
    [
        (_GOOD, [0.5, -0.5], "powers"),
        (_GOOD, [0.0, 0.0], "powers"),
        (_GOOD, [0.5, 0.3, 0.2], "do not fit"),
        ([[1.0, 0.2, 0.1], [0.2, 1.0, 0.1]], [0.5, 0.5], "do not fit"),
        ([[1.0, 0.5], [0.2, 1.0]], [0.5, 0.5], "symmetric"),
        ([[1.0, 1.5], [1.5, 1.0]], [0.5, 0.5], "semidefinite"),
        ([[1.0, 0.0], [0.0, -1.0]], [0.5, 0.5], "negative"),
    ],
)
def test_what_is_no_game_is_refused(gram: Any, power: Any, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        bargain(torch.tensor(gram), power)


def test_a_negative_ridge_is_refused() -> None:
    with pytest.raises(InvalidValue, match="ridge"):
        bargain(torch.tensor(_GOOD), [0.5, 0.5], -1.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(wrong: float) -> None:
    with pytest.raises(NonFiniteValue, match="Gram"):
        bargain(torch.tensor([[1.0, wrong], [wrong, 1.0]]), [0.5, 0.5])
    with pytest.raises(NonFiniteValue, match="powers"):
        bargain(torch.tensor(_GOOD), [0.5, wrong])
    with pytest.raises(NonFiniteValue, match=r"player \[1\]"):
        gram_matrix(torch.tensor([[1.0, 2.0], [wrong, 0.0]]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_finds_the_same() -> None:
    grams = torch.stack([gram_matrix(drawn(seed, 5)[0]) for seed in range(8)])
    found = bargain(grams.cuda(), torch.full((5,), 0.2))
    assert found.alpha.is_cuda
    assert_near(found.alpha.cpu(), bargain(grams, torch.full((5,), 0.2)).alpha, 1e-9)


@given(seeds, st.sampled_from([0.0, 1e-2]))
def test_arrays_of_both_libraries_come_to_the_same(seed: int, ridge: float) -> None:
    """A batch on CUDA goes the way of PyTorch's arrays, which a CPU can go as well."""
    drawings = [drawn(seed + each, 4) for each in range(9)]
    unit = torch.stack([gradients / gradients.norm(dim=1, keepdim=True) for gradients, _ in drawings])
    cosines, powers = gram_matrix(unit), torch.stack([power for _, power in drawings])
    # Opposites among them, for which there is no minimum.
    cosines[4] = torch.ones(4, 4, dtype=torch.float64)
    cosines[4, 0, 1:] = cosines[4, 1:, 0] = -1.0
    raised = cosines + ridge * torch.eye(4, dtype=torch.float64)
    one = minimize(torch, raised, powers)
    other = minimize(np, raised.numpy(), powers.numpy())
    assert one.converged.tolist() == other.converged.tolist() == [each != 4 or ridge > 0 for each in range(9)]
    found = torch.from_numpy(other.converged)
    assert_near(one.at[found], torch.from_numpy(other.at)[found], 1e-9)


@given(seeds, sizes, st.sampled_from([0.0, 1e-8, 1e-2]))
def test_one_game_is_solved_as_one_of_many_is(seed: int, players: int, ridge: float) -> None:
    gradients, power = drawn(seed, players, 4)
    gram = gram_matrix(gradients)
    alone, among = bargain(gram, power, ridge), bargain(gram.unsqueeze(0), power, ridge)
    assert bool(alone.degenerate) == bool(among.degenerate[0])
    if not alone.degenerate:
        assert_near(alone.alpha, among.alpha[0], 1e-7)


@pytest.mark.parametrize("ridge", [0.0, 1e-2])
def test_the_order_of_the_matrix_in_memory_changes_nothing(ridge: float) -> None:
    gradients, power = drawn(0, 4)
    gram = gram_matrix(gradients)
    gram = 0.5 * (gram + gram.mT)
    assert torch.equal(bargain(gram.mT, power, ridge).alpha, bargain(gram, power, ridge).alpha)
