"""TorchJD's properties of aggregators, written anew, and that the bargaining solutions have those that they can have."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchjd.aggregation import Aggregator, Weighting
from torchjd.autogram import Engine
from torchjd.autojac import backward, jac_to_grad

from comity.errors import InvalidValue
from comity.protocols.nash_bargaining.aggregators import AuxiNash, AuxiNashWeighting, NashMTL, NashMTLWeighting
from tests.protocols.nash_bargaining.test_algorithm import CASES, GOLDEN, NEARLY_OPPOSITE, TIGHT, golden

seeds = st.integers(0, 2**32)
shapes = st.sampled_from([(2, 3), (3, 9), (5, 40), (9, 11)])


def made(tasks: int) -> dict[str, Aggregator]:
    return {"NashMTL": NashMTL(), "AuxiNash": AuxiNash(tasks, main_power=0.4)}


def matrix(seed: int, shape: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def assert_expected_structure(aggregator: Aggregator, jacobian: Tensor) -> None:
    """One finite number for each column, of the matrix's dtype."""
    update = aggregator(jacobian)
    assert update.shape == jacobian.shape[1:]
    assert update.dtype == jacobian.dtype
    assert bool(update.isfinite().all())


def assert_non_conflicting(aggregator: Aggregator, jacobian: Tensor) -> None:
    """No row is made worse."""
    assert bool((jacobian @ aggregator(jacobian) >= 0).all())


def assert_row_scale_invariant(aggregator: Aggregator, jacobian: Tensor) -> None:
    """A row's length changes nothing: the bargaining solutions are not linear under scaling, and need not be."""
    scales = 10 ** torch.linspace(-2, 2, len(jacobian), dtype=torch.float64)
    assert torch.allclose(aggregator(scales[:, None] * jacobian), aggregator(jacobian), rtol=1e-8, atol=1e-12)


def assert_permutation_invariant(aggregator: Aggregator, jacobian: Tensor, first: int) -> None:
    """The order of the rows from `first` on changes nothing."""
    order = torch.cat([torch.arange(first), torch.arange(first, len(jacobian)).flip(0)])
    assert torch.allclose(aggregator(jacobian[order]), aggregator(jacobian), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["NashMTL", "AuxiNash"])
@given(seed=seeds, shape=shapes)
def test_properties(name: str, seed: int, shape: tuple[int, int]) -> None:
    aggregator, jacobian = made(shape[0])[name], matrix(seed, shape)
    assert_expected_structure(aggregator, jacobian)
    assert_expected_structure(aggregator, jacobian.float())
    if shape[0] <= shape[1]:
        assert_non_conflicting(aggregator, jacobian)
        assert_row_scale_invariant(aggregator, jacobian)
        assert_permutation_invariant(aggregator, jacobian, 0 if name == "NashMTL" else 1)
        assert math.isclose(float(aggregator(jacobian).norm()), 1.0, rel_tol=1e-9)


@pytest.mark.parametrize("name", ["NashMTL", "AuxiNash"])
@pytest.mark.parametrize("case", [[[0.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [-1.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]]])
def test_degenerate_matrices_have_finite_updates(name: str, case: list[list[float]]) -> None:
    assert_expected_structure(made(2)[name], torch.tensor(case))


@pytest.mark.parametrize("case", CASES, ids=GOLDEN["name"])
def test_weights_on_golden_cases(case: int) -> None:
    gram, power, alpha, _ = golden(case)
    weighting = AuxiNashWeighting(len(gram), main_power=float(power[0]), floor=1e-12)
    weighting.powers.copy_(power)
    tolerance = NEARLY_OPPOSITE if "1-1e-6" in str(GOLDEN["name"][case]) else TIGHT
    assert float((weighting(gram) / alpha - 1).abs().max()) <= tolerance


def test_norms_may_be_bounded() -> None:
    jacobian = matrix(0, (3, 9))
    assert math.isclose(float(NashMTL(max_norm=0.25)(jacobian).norm()), 0.25, rel_tol=1e-9)
    assert torch.equal(NashMTL(max_norm=2.0)(jacobian), NashMTL()(jacobian))


def test_power_moves_to_who_helps_and_is_kept_and_forgotten() -> None:
    main = torch.tensor([1.0, 0.0, 0.0])
    jacobian = torch.tensor([[1.0, 0.2, 0.0], [1.0, 0.0, 0.3], [-0.5, 1.0, 0.0]])
    aggregator = AuxiNash(3, main_power=0.25)
    with pytest.raises(InvalidValue, match="aggregate first"):
        aggregator.update_powers(main)
    for _ in range(20):
        aggregator(jacobian)
        aggregator.update_powers(main)
    helpful, harmful = aggregator.powers[1:].tolist()
    assert helpful > 0.6
    assert harmful < 0.15
    assert math.isclose(float(aggregator.powers.sum()), 1.0)
    assert aggregator.powers[0] == 0.25
    other = AuxiNash(3)
    other.load_state_dict(aggregator.state_dict())
    assert torch.equal(other.powers, aggregator.powers)
    assert torch.equal(other(jacobian), aggregator(jacobian))
    aggregator.reset()
    assert aggregator.powers.tolist() == [0.25, 0.375, 0.375]


def test_a_learned_main_power_is_capped() -> None:
    main = torch.tensor([1.0, 0.0])
    jacobian = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    aggregator = AuxiNash(2, main_power=0.5, most_main=0.6, rate=1.0)
    for _ in range(20):
        aggregator(jacobian)
        aggregator.update_powers(main)
    assert aggregator.powers[0] == pytest.approx(0.6)
    assert float(aggregator.powers.sum()) == pytest.approx(1.0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidValue, match="n_tasks"):
        AuxiNash(1)
    with pytest.raises(InvalidValue, match="main_power"):
        AuxiNash(2, main_power=1.0)
    with pytest.raises(InvalidValue, match="max_norm"):
        NashMTL(max_norm=-1.0)
    aggregator = AuxiNash(2)
    aggregator(torch.eye(2))
    with pytest.raises(InvalidValue, match="powers cannot be updated"):
        aggregator.update_powers(torch.ones(3))


def trained(model: nn.Module, losses: Any, weighting: Weighting[Any] | None, aggregator: Aggregator | None) -> Tensor:
    """The gradient that a model gets by autogram, or by autojac."""
    model.zero_grad()
    if weighting is not None:
        engine = Engine(model, batch_dim=None)
        values = losses()
        values.backward(weighting(engine.compute_gramian(values)))
    else:
        values = losses()
        backward(list(values))
        jac_to_grad(model.parameters(), aggregator)
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


@pytest.mark.parametrize(
    ("weighting", "aggregator"),
    [(NashMTLWeighting(), NashMTL()), (AuxiNashWeighting(2), AuxiNash(2))],
    ids=["NashMTL", "AuxiNash"],
)
def test_autogram_and_autojac_agree(weighting: Weighting[Any], aggregator: Aggregator) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    inputs, targets = torch.randn(1, 4), torch.randn(1, 2)

    def losses() -> Tensor:
        return (model(inputs) - targets).square()[0]

    one, other = trained(model, losses, weighting, None), trained(model, losses, None, aggregator)
    assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)
