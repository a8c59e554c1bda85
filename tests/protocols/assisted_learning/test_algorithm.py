"""Algorithm 1's choices: screening picks what a full evaluation would, whatever the order of work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, Int
from torch import Tensor

from comity.protocols.assisted_learning.algorithm import (
    Loss,
    Screening,
    Selection,
    argmin,
    sampled_iterations,
    split_iterations,
)
from comity.protocols.assisted_learning.choices import Objective

objectives = st.sampled_from(get_args(Objective))
# A few values that come again and again make ties; the others are losses as float32 models give them.
sample_losses = st.sampled_from([0.0, 0.5, 1.0, math.inf]) | st.floats(0, 1e6, width=32)
sender_sums = st.sampled_from([0.0, 1.0]) | st.floats(0, 1e6)
counts = st.integers(1, 10**6)


@dataclass(frozen=True)
class Trajectory:
    """A trajectory as its receiver sees it, and the order in which things happen."""

    sender: list[Loss]
    losses: Float[Tensor, "checkpoints samples"]
    known: list[bool]
    advances: list[int]
    hardness: Float[Tensor, " samples"]
    block: int
    objective: Objective

    def totals(self) -> list[float]:
        """Every checkpoint's global loss, fully evaluated."""
        own = [Loss(float(row.sum()), len(row)) for row in self.losses]
        pairs = zip(self.sender, own, strict=True)
        return [sender.value(self.objective) + each.value(self.objective) for sender, each in pairs]


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    checkpoints, samples = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    row = st.lists(sample_losses, min_size=samples, max_size=samples)
    rows = draw(st.lists(row, min_size=checkpoints, max_size=checkpoints))
    if draw(st.booleans()):
        rows[-1] = rows[0]
    peer = draw(st.integers(1, 50))

    def each(values: st.SearchStrategy[float]) -> list[float]:
        return draw(st.lists(values, min_size=checkpoints, max_size=checkpoints))

    return Trajectory(
        sender=[Loss(sum, peer) for sum in each(sender_sums)],
        losses=torch.tensor(rows, dtype=torch.float64),
        known=each(st.booleans()),  # type: ignore[arg-type]
        advances=each(st.integers(0, 5)),  # type: ignore[arg-type]
        hardness=torch.tensor(draw(row), dtype=torch.float64),
        block=draw(st.integers(1, samples + 2)),
        objective=draw(objectives),
    )


def screen(trajectory: Trajectory) -> tuple[Selection, Int[Tensor, "checkpoints samples"]]:
    """Runs a screening; returns its choice, and how often each sample of each checkpoint was evaluated."""
    evaluated = torch.zeros(trajectory.losses.shape, dtype=torch.int64)

    def evaluate(index: int, samples: Int[Tensor, " block"]) -> Float[Tensor, " block"]:
        evaluated[index, samples] += 1
        return trajectory.losses[index, samples]

    screening = Screening(evaluate, trajectory.hardness, block=trajectory.block, objective=trajectory.objective)
    for index, sender in enumerate(trajectory.sender):
        screening.add(index, sender, trajectory.losses[index].clone() if trajectory.known[index] else None)
        for _ in range(trajectory.advances[index]):
            screening.advance()
    assert len(screening) == len(trajectory.sender)
    return screening.select(), evaluated


def assert_lowest_argmin(totals: Sequence[float], index: int) -> None:
    assert totals[index] == min(totals)
    assert index == list(totals).index(min(totals))


@given(trajectories())
def test_screening_picks_what_a_full_evaluation_picks(trajectory: Trajectory) -> None:
    selection, _ = screen(trajectory)
    assert_lowest_argmin(trajectory.totals(), selection.index)
    assert selection.total == trajectory.totals()[selection.index]
    assert torch.equal(selection.losses, trajectory.losses[selection.index])


@given(trajectories())
def test_screening_evaluates_nothing_twice_and_says_how_much_it_did(trajectory: Trajectory) -> None:
    selection, evaluated = screen(trajectory)
    assert int(evaluated.max()) <= 1
    unknown = torch.tensor([not each for each in trajectory.known])
    assert not evaluated[~unknown].any()
    share = float(evaluated[unknown].double().mean()) if unknown.any() else 0.0
    assert selection.work == pytest.approx(share)
    assert 0 <= selection.work <= 1


def test_screening_leaves_out_what_cannot_win() -> None:
    losses = torch.tensor([[1.0, 1.0, 1.0, 1.0], [9.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1]], dtype=torch.float64)
    sender = [Loss(1.0, 1), Loss(0.0, 1), Loss(9.0, 1)]
    selection, evaluated = screen(
        Trajectory(sender, losses, [True, False, False], [0] * 3, torch.tensor([4.0, 3, 2, 1]), 1, "sum")
    )
    assert selection.index == 0
    # One sample was enough to abandon the second, the sender's loss alone the third.
    assert evaluated.sum(dim=1).tolist() == [0, 1, 0]
    assert selection.work == 1 / 8


def test_screening_has_nothing_to_choose_from_nothing() -> None:
    screening = Screening(lambda index, samples: samples.double(), torch.zeros(2), block=1, objective="sum")
    assert not screening.advance()
    with pytest.raises(ValueError, match="checkpoint 0"):
        screening.select()


@given(st.lists(sample_losses, min_size=1))
def test_argmin_is_the_lowest_index_of_the_least(totals: list[float]) -> None:
    assert_lowest_argmin(totals, argmin(totals))


@given(sender_sums, counts)
def test_objectives_weigh_sums_or_means(sum: float, count: int) -> None:
    assert Loss(sum, count).value("sum") == sum
    assert Loss(sum, count).value("mean") == sum / count


@given(counts, counts)
def test_sampled_iterations_begin_with_the_initial_model_and_stay_below_t(iterations: int, period: int) -> None:
    sampled = sampled_iterations(iterations, period)
    assert sampled[0] == 0
    assert sampled[-1] < iterations <= sampled[-1] + period
    assert sampled.step == period


@given(st.integers(2, 10**6), counts, counts)
def test_iterations_are_split_like_the_samples(total: int, learner: int, provider: int) -> None:
    one, other = split_iterations(total, learner, provider)
    assert one + other == total
    assert min(one, other) >= 1
    exact = total * learner / (learner + provider)
    assert abs(one - min(max(exact, 1), total - 1)) <= 0.5


def test_iterations_are_split_as_in_the_demo() -> None:
    assert split_iterations(100, 37, 100) == (27, 73)
