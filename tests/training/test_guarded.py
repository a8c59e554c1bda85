"""A guarded training: what is sent of it, and that it goes on from any snapshot with the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from comity.contract import ModelSpec
from comity.data import DataConfig, Splits, load_data
from comity.errors import ReleaseRefused
from comity.models import build
from comity.privacy.leak_guard import Rules
from comity.tensors import State
from comity.training import (
    AssistedDistillation,
    Distillation,
    OptimizerSpec,
    Resume,
    Secret,
    Snapshot,
    Supervised,
)

SGD = OptimizerSpec("sgd", 0.1)
# Batches so small that many rows are held.
HOLDING = Rules(fewest=24)


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_data(DataConfig(source="digits", per_class=20))


def task(splits: Splits, rules: Rules | None = HOLDING, *, hidden: int = 32, **changes: Any) -> Supervised:
    model = build("mlp", input_shape=(1, 8, 8), outputs=10, options={"hidden": hidden}, seed=1)
    settings = {
        "normalization": ((), ()),
        "batch_size": 16,
        "evaluation_batch_size": 64,
        "secret": Secret(b"clinic", "s-1"),
        "device": torch.device("cpu"),
    }
    return Supervised(model, splits, rules=rules, **(settings | changes))


def kept(state: State) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def trained(learner: Any, state: State, resume: Resume | None = None, spec: OptimizerSpec = SGD) -> list[Snapshot]:
    snapshots = learner.trajectory(state, spec, iterations=13, period=2, round=2, resume=resume)
    return [Snapshot(each.iteration, kept(each.state), kept(each.optimizer), each.verdict) for each in snapshots]


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def taught(splits: Splits) -> AssistedDistillation:
    how = Distillation(SGD, to_own_epochs=1, to_shared=2)
    return AssistedDistillation(task(splits, None), task(splits), how, ModelSpec(name="mlp"))


@pytest.mark.parametrize("spec", [SGD, OptimizerSpec("adam", 0.01)])
@pytest.mark.parametrize("make", [task, taught])
def test_a_training_goes_on_from_any_snapshot_with_the_same_bits(
    make: Any, spec: OptimizerSpec, digits: Splits
) -> None:
    start = task(digits).initial_state
    snapshots = trained(make(digits), start, spec=spec)
    assert sum(each.verdict.held_rows for each in snapshots if each.verdict) > 0
    for index, snapshot in enumerate(snapshots):
        resume = Resume(snapshot.iteration, snapshot.optimizer)
        rest = trained(make(digits), snapshot.state, resume, spec)
        assert [each.iteration for each in rest] == [each.iteration for each in snapshots[index + 1 :]]
        for one, two in zip(snapshots[index + 1 :], rest, strict=True):
            assert one.verdict == two.verdict
            assert same(one.state, two.state)
            assert same(one.optimizer, two.optimizer)


def test_rows_that_stay_are_those_that_were_sent_last_and_the_training_is_not_touched(digits: Splits) -> None:
    start = task(digits).initial_state
    plain, guarded = (trained(task(digits, rules), start) for rules in (None, HOLDING))
    before = start
    held, waiting, left = 0, set(), 0
    for one, two in zip(plain, guarded, strict=True):
        for name in start:
            rows = two.state[name].flatten(1) if two.state[name].ndim > 1 else two.state[name].unsqueeze(1)
            as_sent = (rows == before[name].view(rows.shape)).all(1)
            as_trained = (rows == one.state[name].view(rows.shape)).all(1)
            assert (as_sent | as_trained).all()
            held += int((as_sent & ~as_trained).sum())
            for row in range(len(rows)):
                left += bool(as_trained[row] and not as_sent[row] and (name, row) in waiting)
            waiting |= {(name, row) for row in range(len(rows)) if not as_trained[row]}
        before = two.state
    assert held > 0
    # A row that waited leaves with all that came together.
    assert left > 0


def test_what_shows_many_samples_ends_the_trajectory_with_what_was_sent_before(digits: Splits) -> None:
    rules = Rules(fewest=1, row=1.0, combined=0.5, most_isolated=0)
    start = task(digits).initial_state
    *_, last = trained(task(digits, rules), start)
    assert last.verdict is not None
    assert last.verdict.is_refused
    assert same(last.state, start)
    with pytest.raises(ReleaseRefused):
        last.verdict.require()
