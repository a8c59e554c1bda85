"""One suite for every strategy: candidates alone, in blocks, whatever their order, repeatable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from comity.errors import InvalidValue, MalformedMessage
from comity.protocols.peer_study.pool import TensorPool, in_blocks
from comity.protocols.peer_study.strategies import STRATEGIES, Question, Strategy, choose, strategy
from comity.protocols.peer_study.students import Fitting, Labelled, PeerStudents, fit_task_model
from comity.training import Secret
from tests.protocols.peer_study.scenes import digits, hasty, mlp

SAMPLES = 200
SECRET = Secret(b"k", "s")


@dataclass(eq=False)
class WatchedPool:
    """A pool that says what was read of it."""

    inputs: Tensor
    read_indices: set[int] = field(default_factory=set)
    largest: int = 0

    def __len__(self) -> int:
        return len(self.inputs)

    def read(self, indices: Tensor) -> Tensor:
        self.read_indices |= {*indices.tolist()}
        self.largest = max(self.largest, len(indices))
        return self.inputs[indices]


@pytest.fixture(scope="module")
def question() -> Question:
    """Models that were trained a little, and of 200 samples 60 that may be asked for."""
    inputs, labels = digits()
    pool = TensorPool(inputs[:SAMPLES])
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))
    labelled = Labelled(order[:20], labels[order[:20]])
    model = mlp(16)()
    fit_task_model(model, pool, labelled, Fitting(steps=30), SECRET)
    students = PeerStudents(mlp(8), 2, 1, Fitting(steps=10))
    students.fit(model, pool, labelled, SECRET)
    return Question(pool, order[20:80], labelled, 10, 10, model, students, seed=5)


@pytest.fixture(params=sorted(STRATEGIES))
def asked(request: pytest.FixtureRequest) -> Strategy:
    """Each strategy; those that learn do so for a few steps."""
    return hasty(request.param)


def test_it_takes_candidates_and_reads_neither_others_nor_too_much_at_once(asked: Strategy, question: Question) -> None:
    pool = WatchedPool(question.pool.read(torch.arange(SAMPLES)))

    chosen = choose(asked, replace(question, pool=pool, block=16))

    assert len({*chosen.tolist()}) == question.budget
    assert {*chosen.tolist()} <= {*question.candidates.tolist()}
    assert pool.read_indices <= {*question.candidates.tolist()} | {*question.labelled.indices.tolist()}
    assert pool.largest <= 16


def test_it_answers_the_same_again_in_any_blocks_and_order(asked: Strategy, question: Question) -> None:
    once = {*choose(asked, question).tolist()}
    assert {*choose(asked, question).tolist()} == once
    assert {*choose(asked, replace(question, block=7)).tolist()} == once
    assert {*choose(asked, replace(question, candidates=question.candidates.flip(0))).tolist()} == once


def test_it_leaves_models_and_the_global_generator_as_they_are(asked: Strategy, question: Question) -> None:
    assert question.students is not None
    models = (question.task_model, question.students)
    before = [{name: each.clone() for name, each in model.state_dict().items()} for model in models]
    state = torch.get_rng_state()
    choose(asked, question)
    assert torch.equal(torch.get_rng_state(), state)
    for model, states in zip(models, before, strict=True):
        assert all(torch.equal(each, states[name]) for name, each in model.state_dict().items())
        assert all(each.grad is None or not each.grad.isnan().any() for each in model.parameters())


def test_none_one_or_all_can_be_asked_for(asked: Strategy, question: Question) -> None:
    assert not len(choose(asked, replace(question, budget=0)))
    assert len(choose(asked, replace(question, budget=1))) == 1
    every = choose(asked, replace(question, budget=len(question.candidates)))
    assert sorted(every.tolist()) == sorted(question.candidates.tolist())


def test_equal_samples_can_be_chosen_among(asked: Strategy, question: Question) -> None:
    same = TensorPool(question.pool.read(torch.zeros(SAMPLES, dtype=torch.int64)))
    assert len(choose(asked, replace(question, pool=same)).unique()) == question.budget


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"budget": 61}, InvalidValue, "budget"),
        ({"budget": -1}, InvalidValue, "budget"),
        ({"candidates": torch.tensor([1, 1]), "budget": 1}, MalformedMessage, "each once"),
        ({"candidates": torch.tensor([SAMPLES]), "budget": 1}, MalformedMessage, "Candidates"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    asked: Strategy, question: Question, changes: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        choose(asked, replace(question, **changes))  # type: ignore[arg-type]


def test_a_strategy_that_leaves_the_candidates_is_stopped(question: Question) -> None:
    @dataclass
    class Astray:
        chosen: Tensor
        needs_pool_on_server: ClassVar[bool] = False
        uses_students: ClassVar[bool] = False

        def select(self, question: Question) -> Tensor:
            return self.chosen

    protected = next(
        each
        for each in range(SAMPLES)
        if each not in {*question.candidates.tolist(), *question.labelled.indices.tolist()}
    )
    for chosen in ([protected], [int(question.labelled.indices[0])], question.candidates[:2].tolist()):
        with pytest.raises(MalformedMessage, match="Astray chose"):
            choose(Astray(torch.tensor(chosen)), replace(question, budget=1))


def test_students_are_wanted_where_they_are_used(question: Question) -> None:
    with pytest.raises(InvalidValue, match="students"):
        choose(strategy("peer_study"), replace(question, students=None))
    with pytest.raises(InvalidValue, match="peer_study or random"):
        strategy("nobody's")


def test_only_peer_study_and_chance_leave_the_pool_at_home() -> None:
    assert {name for name in STRATEGIES if not strategy(name).needs_pool_on_server} == {"peer_study", "random"}


def test_a_pool_on_disk_is_read_as_one_in_memory(question: Question, tmp_path: Path) -> None:
    inputs = (question.pool.read(torch.arange(SAMPLES)) * 16).to(torch.uint8)
    inputs.numpy().tofile(tmp_path / "pool")
    mapped = torch.from_numpy(np.memmap(tmp_path / "pool", np.uint8, "r+", shape=tuple(inputs.shape)))
    pool = TensorPool(mapped, scale=1 / 16)
    asked = strategy("peer_study")
    assert torch.equal(choose(asked, replace(question, pool=pool, block=9)), choose(asked, question))


def test_blocks_are_of_something(question: Question) -> None:
    with pytest.raises(InvalidValue, match="block"):
        in_blocks(question.pool, torch.arange(3), torch.abs, 0)
    with pytest.raises(InvalidValue, match="Samples to be read"):
        in_blocks(question.pool, torch.arange(0), torch.abs)
