"""AssistKD's local training: equation (3), both stages, warm starts, and going on from any sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comity.contract import HeadSpec, ModelSpec
from comity.data import DataConfig, Splits, load_data
from comity.errors import InvalidValue
from comity.models import build
from comity.privacy import Mechanism
from comity.tasks.classification import CrossEntropy
from comity.tensors import State
from comity.training import (
    AssistedDistillation,
    Distillation,
    OptimizerSpec,
    Resume,
    Secret,
    Supervised,
    distillation_loss,
)

ADAM = OptimizerSpec("adam", 0.01)


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_data(DataConfig(source="digits", per_class=10))


def classification(splits: Splits, hidden: int, *, seed: int = 1, **changes: Any) -> Supervised:
    model = build("mlp", input_shape=(1, 8, 8), outputs=10, options={"hidden": hidden}, seed=seed)
    settings = {
        "normalization": ((), ()),
        "batch_size": 32,
        "evaluation_batch_size": 64,
        "secret": Secret(b"clinic", "s-1"),
        "device": torch.device("cpu"),
    }
    return Supervised(model, splits, **(settings | changes))


def task(splits: Splits, **changes: Any) -> AssistedDistillation:
    settings = {"optimizer": ADAM, "to_own_epochs": 3, "to_shared": 10}
    return AssistedDistillation(
        classification(splits, 32),
        classification(splits, 8),
        Distillation(**(settings | changes)),
        ModelSpec(name="mlp"),
    )


def kept(state: State) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def trained(learner: AssistedDistillation, state: State, resume: Resume | None = None, **changes: int) -> list[Any]:
    settings = {"iterations": 17, "period": 4, "round": 2} | changes
    samples = learner.trajectory(state, ADAM, resume=resume, **settings)
    return [(sample.iteration, kept(sample.state), kept(sample.optimizer)) for sample in samples]


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@given(seed=st.integers(0, 2**32), temperature=st.floats(0.2, 5), alpha=st.floats(0, 1), classes=st.integers(2, 6))
def test_equation_3_term_by_term(seed: int, temperature: float, alpha: float, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(4, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(classes, (4,), generator=generator)

    def share(z: torch.Tensor, i: int, t: float) -> torch.Tensor:
        return (z[i] / t).exp() / (z / t).exp().sum()

    total = torch.zeros((), dtype=torch.float64)
    for z_s, z_t, y in zip(student, teacher, labels.tolist(), strict=True):
        for i in range(classes):
            total -= alpha * share(z_t, i, temperature) * share(z_s, i, temperature).log()
            total -= (1 - alpha) * (y == i) * share(z_s, i, 1.0).log()
    objective = CrossEntropy(HeadSpec(name="class", size=classes))
    loss = distillation_loss(objective, student, teacher, {"class": labels}, temperature=temperature, alpha=alpha)
    assert float(loss) == pytest.approx(float(total / 4), rel=1e-9)


def test_the_teachers_gradient_stays_out(digits: Splits) -> None:
    learner = classification(digits, 8)
    logits = learner.said(learner.initial_state, torch.arange(5))
    assert not logits.requires_grad
    assert logits.shape == (5, 10)


def test_checkpoint_0_is_the_model_that_was_picked_and_others_learn_from_the_own_one(digits: Splits) -> None:
    learner = task(digits)
    picked = classification(digits, 8, seed=9).initial_state
    first, *rest = trained(learner, picked, iterations=121, period=40)
    assert first[0] == 0
    assert same(first[1], picked)
    before = float(learner.losses(picked).sum())
    after = [float(learner.losses(state).sum()) for _, state, _ in rest]
    assert after[-1] < 0.8 * before
    # Each distillation begins with the one before: three of ten steps go further than one.
    assert after == sorted(after, reverse=True)


def test_the_initial_model_teaches_the_own_one_nothing_and_a_picked_one_does(digits: Splits) -> None:
    learner = task(digits, to_own_epochs=30)
    own = classification(digits, 32)
    assert same(learner.own_model(learner.initial_state, 1), own.initial_state)
    teacher = classification(digits, 8)
    *_, last = teacher.trajectory(teacher.initial_state, ADAM, iterations=201, period=100, round=1)
    picked = kept(last.state)
    taught = learner.own_model(picked, 1)
    untaught, reached = (learner.own_tested(state)["accuracy"] for state in (own.initial_state, taught))
    assert untaught is not None
    assert reached is not None
    assert reached > untaught + 0.4
    # Soft labels alone are enough.
    blind = task(digits, alpha=1.0, to_own_epochs=30).own_model(picked, 1)
    agreed = own.said(blind, torch.arange(own.samples)).argmax(1) == teacher.said(
        picked, torch.arange(own.samples)
    ).argmax(1)
    assert agreed.float().mean() > 0.8


def test_a_training_goes_on_from_any_sample_with_the_same_bits(digits: Splits) -> None:
    picked = classification(digits, 8, seed=9).initial_state
    samples = trained(task(digits), picked)
    assert [each[0] for each in samples] == [0, 4, 8, 12, 16]
    for index, (iteration, state, optimizer) in enumerate(samples):
        rest = trained(task(digits), state, Resume(iteration, optimizer))
        assert [each[0] for each in rest] == [each[0] for each in samples[index + 1 :]]
        for (_, one, first), (_, two, second) in zip(samples[index + 1 :], rest, strict=True):
            assert same(one, two)
            assert same(first, second)


def test_what_crosses_is_the_shared_architecture(digits: Splits) -> None:
    learner = task(digits)
    assert learner.layout == classification(digits, 8).layout
    for _, state, optimizer in trained(learner, learner.initial_state):
        learner.layout.pack(state)
        assert {name.partition(".")[0] for name in optimizer} <= {"own", "optimizer"}


@pytest.mark.parametrize(
    "changes", [{"alpha": -0.1}, {"alpha": 1.1}, {"temperature": 0}, {"to_shared": 0}, {"to_own_epochs": 0}]
)
def test_numbers_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        Distillation(ADAM, **changes)


def test_privacy_does_not_survive_a_distillation(digits: Splits) -> None:
    pytest.importorskip("opacus")
    private = classification(digits, 32, privacy=Mechanism(1.0))
    with pytest.raises(InvalidValue, match="not covered"):
        AssistedDistillation(private, classification(digits, 8), Distillation(ADAM), ModelSpec(name="mlp"))
