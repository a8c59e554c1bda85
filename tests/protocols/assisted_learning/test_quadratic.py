"""The regression example: its steps by hand, and Theorem 1's gradient norm by the algorithm itself."""

from __future__ import annotations

import pytest
import torch

from comity.protocols.assisted_learning.algorithm import argmin
from comity.tensors import State
from comity.training import OptimizerSpec, Quadratic
from comity.training.quadratic import LEARNER_POINT, PROVIDER_POINT

START = torch.tensor([0.0, 3.0])


def tasks() -> tuple[Quadratic, Quadratic]:
    learner, provider = (
        Quadratic(torch.tensor([point], dtype=torch.float64), START) for point in (LEARNER_POINT, PROVIDER_POINT)
    )
    return learner, provider


def walk(task: Quadratic, state: State, rate: float, iterations: int, period: int = 1) -> list[State]:
    samples = task.trajectory(state, OptimizerSpec("sgd", rate), iterations=iterations, period=period, round=1)
    return [{"theta": sample.state["theta"].clone()} for sample in samples]


def test_steps_by_hand() -> None:
    learner, _ = tasks()
    path = walk(learner, learner.initial_state, 0.5, 5, 2)
    expected = [START.double()]
    for _ in range(4):
        expected.append(expected[-1] - 0.5 * (expected[-1] - torch.tensor(LEARNER_POINT, dtype=torch.float64)))
    assert [state["theta"].tolist() for state in path] == [expected[step].tolist() for step in (0, 2, 4)]
    assert learner.losses({"theta": torch.tensor([1.0, 1.0]).double()}).tolist() == [4.0]


def test_assistance_finds_the_middle_and_its_loss_never_rises() -> None:
    learner, provider = tasks()
    theta = learner.initial_state

    def total(state: State) -> float:
        return float(learner.losses(state).sum()) + float(provider.losses(state).sum())

    totals = [total(theta)]
    for round in range(10):
        for task in (learner, provider):
            path = walk(task, theta, 0.9**round, 10)
            theta = path[argmin([total(state) for state in path])]
            totals.append(total(theta))
    assert totals == sorted(totals, reverse=True)
    assert theta["theta"].tolist() == pytest.approx([0.0, -1.125], abs=0.35)


@pytest.mark.slow
def test_the_gradient_vanishes_as_theorem_1_says() -> None:
    learner, provider = tasks()
    points = [torch.tensor(point, dtype=torch.float64) for point in (LEARNER_POINT, PROVIDER_POINT)]

    def total(state: State) -> float:
        return float(learner.losses(state).sum()) + float(provider.losses(state).sum())

    # f(L,P) has gradients that are 2-Lipschitz, and is least in the middle; the path stays within its start's distance.
    excess = total(learner.initial_state) - total({"theta": (points[0] + points[1]) / 2})
    steps, smoothness, greatest = 10, 2.0, float((2 * START.double() - points[0] - points[1]).norm())
    norms = []
    for rounds in (4, 64, 512):
        rate = (excess / (3 * rounds * smoothness * steps * greatest**2)) ** 0.5
        theta, least = learner.initial_state, greatest
        for _ in range(rounds):
            least = min(least, float((2 * theta["theta"] - points[0] - points[1]).norm()))
            for task in (learner, provider):
                path = walk(task, theta, rate, steps)
                theta = path[argmin([total(each) for each in path])]
        assert least**2 <= excess / (rate * rounds) + 3 * rate * smoothness * steps * greatest**2
        norms.append(least)
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] < 0.1
