"""Attacks on what leaves: a peer that crafts models, or waits, and what the guard leaves of it, policy's limits being off.

A sample counts as recovered where what is read off correlates with it above .95, and the residual is below half the
distance to the sample's nearest other one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from comity.data import DataConfig, Splits, load_data
from comity.models import build
from comity.privacy.leak_guard import Rules, Verdict
from comity.tensors import State
from comity.training import OptimizerSpec, Secret, Supervised

LIMITS_OFF = Rules(fewest=1)
NO_CAP = Rules(fewest=1, most_isolated=10**9)
LINEAR = OptimizerSpec("sgd", 1e-6)


@cache
def digits() -> Splits:
    return load_data(DataConfig(source="digits"))


@cache
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """The samples, centered; their lengths; and the distance of each to its nearest other one."""
    train = digits().train
    x = train.prepare(train.inputs, (), ()).flatten(1).double()
    nearest = torch.cdist(x, x).fill_diagonal_(float("inf")).amin(1)
    centered = x - x.mean(1, keepdim=True)
    return centered, centered.norm(dim=1), nearest


def recovered(reads: Tensor) -> set[int]:
    """The samples that rows show."""
    centered, lengths, nearest = inputs()
    reads = reads.double()[reads.abs().amax(1) > 0]
    if not len(reads):
        return set()
    fits = (normalize(reads - reads.mean(1, keepdim=True), eps=1e-300) @ (centered / lengths.unsqueeze(1)).T).abs()
    best = fits.argmax(1)
    residual = lengths[best] * (1 - fits.amax(1).square()).clamp_min(0).sqrt()
    return set(best[(fits.amax(1) > 0.95) & (residual < nearest[best] / 2)].tolist())


def task(rules: Rules | None, *, hidden: int = 64, layers: int = 1, batch: int = 256) -> Supervised:
    options = {"hidden": hidden, "hidden_layers": layers}
    return Supervised(
        build("mlp", input_shape=(1, 8, 8), outputs=10, options=options, seed=1),
        digits(),
        normalization=((), ()),
        batch_size=batch,
        evaluation_batch_size=256,
        secret=Secret(b"hospital", "s-1"),
        device=torch.device("cpu"),
        rules=rules,
    )


def sends(
    learner: Supervised, state: State, spec: OptimizerSpec, *, period: int, count: int = 1, round: int = 1
) -> tuple[list[State], list[Verdict]]:
    """The models that leave, the first being the one that came, and what was found of each."""
    training = learner.trajectory(state, spec, iterations=period * count + 1, period=period, round=round)
    made = [({name: tensor.clone() for name, tensor in each.state.items()}, each.verdict) for each in training]
    return [state for state, _ in made], [verdict for _, verdict in made if verdict is not None][1:]


def rows_of(states: list[State], name: str) -> Tensor:
    """The changes of a layer's rows between neighbouring models."""
    return torch.cat([two[name].double() - one[name].double() for one, two in pairwise(states)])


def alone_and_in_pairs(states: list[State], name: str) -> Tensor:
    """The changes of rows, and sum and difference of each with the one most like it."""
    reads = []
    for one, two in pairwise(states):
        change = two[name].double() - one[name].double()
        unit = normalize(change, eps=1e-300)
        near = (unit @ unit.T).abs().fill_diagonal_(-1).argmax(1)
        reads += [change, change - change[near], change + change[near]]
    return torch.cat(reads)


def neighbours(states: list[State], name: str) -> Tensor:
    """The changes of rows, and the differences of neighbouring ones, whose thresholds follow each other."""
    reads = []
    for one, two in pairwise(states):
        change = two[name].double() - one[name].double()
        reads += [change, change[1:] - change[:-1]]
    return torch.cat(reads)


def project(seed: int = 0) -> Tensor:
    return torch.randn(64, generator=torch.Generator().manual_seed(seed))


def imprint(units: int, *, tail: float = 0.0, seed: int = 0) -> State:
    """Units that fire above the quantiles of one projection (Fowl et al. 2022); those of the upper tail alone."""
    direction = project(seed)
    train = digits().train
    x = train.prepare(train.inputs, (), ()).flatten(1).float()
    quantiles = tail + (1 - tail) * (torch.arange(units) + 0.5) / units
    last = torch.randn(10, 1, generator=torch.Generator().manual_seed(seed + 1)) * 1e-12
    return {
        "1.weight": direction.repeat(units, 1),
        "1.bias": -(x @ direction).quantile(quantiles),
        "3.weight": last.repeat(1, units),
        "3.bias": torch.zeros(10),
    }


def traps(units: int) -> State:
    """Random rows, each with a threshold that about one sample of a batch passes (Boenisch et al. 2023)."""
    draws = torch.Generator().manual_seed(5)
    weight = torch.randn(units, 64, generator=draws)
    train = digits().train
    x = train.prepare(train.inputs, (), ()).flatten(1).float()
    last = torch.randn(10, 1, generator=draws) * 1e-12
    bias = -(x @ weight.T).quantile(1 - 1 / 256, dim=0)
    return {"1.weight": weight, "1.bias": bias, "3.weight": last.repeat(1, units), "3.bias": torch.zeros(10)}


def scaled_and_permuted(units: int) -> State:
    state, draws = dict(imprint(units)), torch.Generator().manual_seed(9)
    order, sizes = torch.randperm(units, generator=draws), torch.rand(units, generator=draws) * 4 + 0.1
    state["1.weight"] = (state["1.weight"] * sizes.unsqueeze(1))[order]
    state["1.bias"] = (state["1.bias"] * sizes)[order]
    state["3.weight"] = state["3.weight"] * (torch.rand(units, generator=draws) + 0.5)
    return state


def with_noise(units: int, share: float) -> State:
    state = dict(imprint(units))
    noise = torch.randn(units, 64, generator=torch.Generator().manual_seed(3))
    state["1.weight"] = state["1.weight"] + share * noise * state["1.weight"].norm(dim=1, keepdim=True) / 8
    return state


def mixed(thresholds: int, rows: int) -> State:
    """Several rows for each threshold, whose combinations alone show samples."""
    state, draws = dict(imprint(thresholds)), torch.Generator().manual_seed(4)
    state = {
        name: tensor.repeat_interleave(rows, 0) if name.startswith("1") else tensor for name, tensor in state.items()
    }
    state["3.weight"] = torch.randn(10, thresholds * rows, generator=draws) * 1e-12
    return state


STEEP = OptimizerSpec("sgd", 1e16)


def test_a_batch_of_one_sample_is_that_sample_and_nothing_of_it_leaves() -> None:
    zero = {name: torch.zeros_like(tensor) for name, tensor in task(None, layers=0).initial_state.items()}
    raw, _ = sends(task(None, layers=0, batch=1), zero, LINEAR, period=1, count=40)
    assert len(recovered(rows_of(raw, "1.weight"))) > 30
    sent, verdicts = sends(task(LIMITS_OFF, layers=0, batch=1), zero, LINEAR, period=1, count=40)
    assert not recovered(rows_of(sent, "1.weight"))
    # And the floor alone, should the rules not see it.
    blind = Rules(row=1.0, combined=2.0)
    sent, verdicts = sends(task(blind, layers=0, batch=1), zero, LINEAR, period=1, count=40)
    assert all(verdict.held_rows == 10 for verdict in verdicts)
    assert not recovered(rows_of(sent, "1.weight"))


WIDE: dict[str, tuple[Callable[[], State], int]] = {
    "imprint": (lambda: imprint(1024), 100),
    "scaled and permuted": (lambda: scaled_and_permuted(1024), 0),
    "noise of a thousandth": (lambda: with_noise(1024, 1e-3), 100),
    "mixed rows": (lambda: mixed(128, 10), 0),
}


@pytest.mark.parametrize("name", WIDE)
def test_wide_attacks_are_refused_whole(name: str) -> None:
    craft, most = WIDE[name]
    state = craft()
    units = len(state["1.bias"])
    raw, _ = sends(task(None, hidden=units), state, STEEP, period=1)
    assert len(recovered(neighbours(raw, "1.weight"))) >= most
    sent, verdicts = sends(task(LIMITS_OFF, hidden=units), state, STEEP, period=1)
    assert verdicts[-1].is_refused
    assert verdicts[-1].isolated > 16
    assert all(torch.equal(sent[-1][name], state[name]) for name in state)


@pytest.mark.parametrize("period", [2, 5])
def test_an_imprint_of_several_steps_is_refused_whole(period: int) -> None:
    state = imprint(1024)
    sent, verdicts = sends(task(LIMITS_OFF, hidden=1024), state, OptimizerSpec("sgd", 1e-3), period=period)
    assert verdicts[-1].is_refused
    assert not recovered(neighbours(sent, "1.weight"))


def test_an_imprint_in_adams_linear_range_is_refused_whole() -> None:
    state = imprint(1024)
    sent, verdicts = sends(task(LIMITS_OFF, hidden=1024), state, OptimizerSpec("adam", 1e-2), period=1)
    assert verdicts[-1].is_refused
    assert not recovered(neighbours(sent, "1.weight"))


@pytest.mark.parametrize(("period", "most"), [(1, 14), (5, 12)])
def test_what_holding_alone_leaves_of_an_imprint(period: int, most: int) -> None:
    state = imprint(1024)
    # Enough to be read off float32 weights, too little to move what the units react to.
    spec = OptimizerSpec("sgd", 1e10)
    raw, _ = sends(task(None, hidden=1024), state, spec, period=period)
    sent, _ = sends(task(NO_CAP, hidden=1024), state, spec, period=period)
    assert len(recovered(neighbours(raw, "1.weight"))) > 5 * most
    assert len(recovered(neighbours(sent, "1.weight"))) <= most


@pytest.mark.parametrize("period", [1, 5, 20])
def test_a_narrow_imprint_in_the_upper_tail(period: int) -> None:
    state = imprint(64, tail=0.9)
    sent, _ = sends(task(LIMITS_OFF), state, OptimizerSpec("sgd", 1e-3), period=period)
    assert not recovered(neighbours(sent, "1.weight"))


def test_trap_rows() -> None:
    state = traps(1024)
    raw, _ = sends(task(None, hidden=1024), state, STEEP, period=1)
    assert len(recovered(rows_of(raw, "1.weight"))) > 50
    sent, _ = sends(task(NO_CAP, hidden=1024), state, STEEP, period=1)
    assert len(recovered(alone_and_in_pairs(sent, "1.weight"))) <= 3


@pytest.mark.parametrize(("period", "most"), [(5, 0), (20, 2)])
def test_few_trap_rows(period: int, most: int) -> None:
    sent, _ = sends(task(LIMITS_OFF), traps(64), OptimizerSpec("sgd", 1e-3), period=period)
    assert len(recovered(alone_and_in_pairs(sent, "1.weight"))) <= most


@pytest.mark.parametrize(("thresholds", "rows"), [(6, 10), (3, 20)])
def test_mixed_rows_within_the_width_that_policy_allows(thresholds: int, rows: int) -> None:
    state = mixed(thresholds, rows)
    sent, _ = sends(task(LIMITS_OFF, hidden=thresholds * rows), state, OptimizerSpec("sgd", 1e-3), period=5)
    change = sent[-1]["1.weight"].double() - state["1.weight"].double()
    # The attacker knows which combination of each threshold's rows is which.
    columns = state["3.weight"].double()
    centers = change.view(thresholds, rows, -1)
    weights = columns.T.reshape(thresholds, rows, 10)
    reads = torch.cat([torch.linalg.pinv(weight) @ center for weight, center in zip(weights, centers, strict=True)])
    per_class = reads.view(thresholds, 10, -1)
    assert not recovered(torch.cat([reads, (per_class[1:] - per_class[:-1]).flatten(0, 1)]))


def test_an_imprint_behind_a_rotation_is_seen_in_the_second_layer() -> None:
    learner = task(LIMITS_OFF, hidden=1024, layers=2)
    state, crafted = dict(learner.initial_state), imprint(1024)
    rotation, _ = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(2)))
    # ± pairs pass through the first ReLU as they are.
    first = torch.zeros(1024, 64)
    first[:64], first[64:128] = rotation, -rotation
    second = torch.zeros(1024, 1024)
    second[:, :64], second[:, 64:128] = crafted["1.weight"] @ rotation.T, -crafted["1.weight"] @ rotation.T
    state |= {"1.weight": first, "1.bias": torch.zeros(1024), "3.weight": second, "3.bias": crafted["1.bias"]}
    state |= {"5.weight": crafted["3.weight"], "5.bias": crafted["3.bias"]}
    _, verdicts = sends(learner, state, OptimizerSpec("sgd", 1e-3), period=1)
    assert verdicts[-1].is_refused


@pytest.mark.parametrize(
    ("batch", "period"),
    [(256, 5), (32, 5), pytest.param(256, 1, marks=pytest.mark.slow), pytest.param(32, 1, marks=pytest.mark.slow)],
)
def test_honest_networks_leak_too_and_are_not_refused(batch: int, period: int) -> None:
    spec = OptimizerSpec("sgd", 0.1)
    start = task(None).initial_state
    count = 100 // period
    raw, _ = sends(task(None, batch=batch), start, spec, period=period, count=count)
    sent, verdicts = sends(task(LIMITS_OFF, batch=batch), start, spec, period=period, count=count)
    assert recovered(alone_and_in_pairs(raw, "1.weight"))
    assert len(recovered(alone_and_in_pairs(sent, "1.weight"))) <= 1
    assert not any(verdict.is_refused for verdict in verdicts)


@pytest.mark.slow
def test_differences_of_successive_sends_of_all_samples() -> None:
    """Batches of all samples: what leaves twice of nearly the same samples is judged together."""
    spec, start = OptimizerSpec("sgd", 0.1), task(None).initial_state
    everybody = len(digits().train)

    def differences(states: list[State]) -> Tensor:
        changes = [two["1.weight"].double() - one["1.weight"].double() for one, two in pairwise(states)]
        return torch.cat([second - scale * first for first, second in pairwise(changes) for scale in (0.9, 1.0, 1.1)])

    sent, verdicts = sends(task(LIMITS_OFF, batch=everybody), start, spec, period=1, count=30)
    assert not any(verdict.is_refused for verdict in verdicts)
    assert len(recovered(differences(sent))) <= 2
