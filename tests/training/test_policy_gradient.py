"""AssistPG's local training: the estimator, common random numbers, determinism, and what does not fit."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from comity.environments import Draws, EnvironmentSet
from comity.environments.cartpole import CartPole
from comity.errors import InvalidValue, TaskMismatch, TrainingDiverged
from comity.models import build
from comity.tensors import State
from comity.training import Baseline, OptimizerSpec, PolicyGradient, Resume, Secret

SGD = OptimizerSpec("sgd", 5e-3)
ADAM = OptimizerSpec("adam", 2e-2)


def policy(**sizes: Any) -> nn.Module:
    options = {"input_shape": (4,), "outputs": 2, "options": {"hidden": 4}, "seed": 1} | sizes
    return build("policy-mlp", **options)


def task(model: nn.Module | None = None, environments: EnvironmentSet | None = None, **changes: Any) -> PolicyGradient:
    settings: dict[str, Any] = {
        "discount": 0.99,
        "baseline": "mean",
        "batch_size": 8,
        "evaluation_episodes": 4,
        "evaluation_batch_size": 7,
        "secret": Secret(b"clinic", "s-1"),
    }
    return PolicyGradient(model or policy(), environments or poles(), **(settings | changes))


def poles() -> EnvironmentSet:
    return EnvironmentSet(CartPole(), np.array([4.2, 4.5, 4.9]), {"I": np.linspace(0.1, 5, 20)})


def kept(state: State) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


class Bandit:
    """Two steps, two actions, rewards that depend on both: an expectation that can be summed up by hand."""

    name = "bandit"
    features = 2
    actions = 2
    horizon = 2
    rewards = np.array([[1.0, -0.5], [0.25, 2.0]])

    def best_return(self, discount: float) -> float:
        return 4.0

    def starts(self, episodes: int, generator: np.random.Generator) -> np.ndarray:
        return np.zeros(episodes)

    def begin(self, parameters: np.ndarray, starts: np.ndarray) -> BanditGames:
        return BanditGames(len(starts))


class BanditGames:
    def __init__(self, games: int) -> None:
        self.observations = np.tile(np.array([1.0, 0.5], dtype=np.float32), (games, 1))
        self._before: np.ndarray | None = None

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = self._before is None
        rewards = np.zeros(len(actions)) if self._before is None else Bandit.rewards[self._before, actions]
        self._before = actions
        self.observations = np.stack([actions.astype(np.float32), np.ones(len(actions), dtype=np.float32)], axis=1)
        return rewards, np.full(len(actions), not first)

    def keep(self, playing: np.ndarray) -> None:
        self.observations = self.observations[playing]


def expected_return(model: nn.Module, discount: float) -> torch.Tensor:
    """J(θ), summed over all four episodes."""
    double = model.double()
    first = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for one, two in product(range(2), repeat=2):
        second = torch.tensor([[float(one), 1.0]], dtype=torch.float64)
        chance = double(first).softmax(1)[0, one] * double(second).softmax(1)[0, two]
        total = total + chance * discount * Bandit.rewards[one, two]
    return total


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["none", "mean"])
def test_the_estimate_of_the_gradient_is_unbiased(baseline: Baseline) -> None:
    model = policy(input_shape=(2,), seed=3)
    state = kept(model.state_dict())
    bandit = EnvironmentSet(Bandit(), np.full(1, np.nan))
    # In batches of two the mean of the others is the one other episode: a bias would show here most.
    learner = task(model, bandit, discount=0.9, baseline=baseline, batch_size=2)
    estimates: dict[str, list[torch.Tensor]] = {name: [] for name in state}
    for batch in range(1500):
        gradient = learner.gradient(state, Draws.make(bandit.environment, np.full(2, np.nan), batch))
        for name, value in gradient.items():
            estimates[name].append(value.clone())
    for name in state:
        stacked = torch.stack(estimates[name]).double()
        mean, error = stacked.mean(0), stacked.std(0) / len(stacked) ** 0.5
        step = 1e-5
        for place in np.ndindex(*state[name].shape):
            values = []
            for sign in (1, -1):
                moved = policy(input_shape=(2,), seed=3).double()
                moved.load_state_dict(state)
                with torch.no_grad():
                    dict(moved.named_parameters())[name][place] += sign * step
                values.append(expected_return(moved, 0.9).item())
            difference = (values[0] - values[1]) / (2 * step)
            assert abs(float(mean[place]) - difference) <= 5 * float(error[place]) + 1e-6


def test_training_raises_the_return() -> None:
    learner = task(batch_size=32, evaluation_episodes=10)
    first, *_, last = (
        float(learner.losses(kept(sample.state)).sum())
        for sample in learner.trajectory(learner.initial_state, ADAM, iterations=41, period=20, round=1)
    )
    assert last < 0.8 * first


def test_losses_are_what_returns_lack_and_do_not_depend_on_the_company() -> None:
    learner = task()
    whole = learner.losses(learner.initial_state)
    assert whole.dtype == torch.float64
    assert learner.samples == len(whole) == 12
    best = CartPole().best_return(0.99)
    assert ((whole > 0) & (whole < best)).all()
    shuffled = torch.tensor([11, 3, 7, 0])
    assert torch.equal(learner.losses(learner.initial_state, shuffled), whole[shuffled])
    other = task(evaluation_batch_size=3)
    assert torch.equal(other.losses(learner.initial_state), whole)


def test_all_models_of_a_session_meet_the_same_luck() -> None:
    learner = task()
    before = learner.losses(learner.initial_state)
    for _ in learner.trajectory(learner.initial_state, SGD, iterations=9, period=4, round=1):
        pass
    assert torch.equal(learner.losses(learner.initial_state), before)
    elsewhere = task(secret=Secret(b"hospital", "s-1"))
    assert not torch.equal(elsewhere.losses(learner.initial_state), before)


@pytest.mark.parametrize("rule", [SGD, ADAM])
def test_a_training_goes_on_from_any_sample_with_the_same_bits(rule: OptimizerSpec) -> None:
    settings = {"iterations": 17, "period": 4, "round": 2}
    learner = task()
    samples = [
        (sample.iteration, kept(sample.state), kept(sample.optimizer))
        for sample in learner.trajectory(learner.initial_state, rule, **settings)
    ]
    assert [iteration for iteration, _, _ in samples] == [0, 4, 8, 12, 16]
    for index, (iteration, state, optimizer) in enumerate(samples):
        resumed = task()
        rest = [
            (sample.iteration, kept(sample.state), kept(sample.optimizer))
            for sample in resumed.trajectory(state, rule, resume=Resume(iteration, optimizer), **settings)
        ]
        assert [each[0] for each in rest] == [each[0] for each in samples[index + 1 :]]
        for (_, one, first), (_, two, second) in zip(samples[index + 1 :], rest, strict=True):
            assert all(torch.equal(one[name], two[name]) for name in one)
            assert first.keys() == second.keys()
            assert all(torch.equal(first[name], second[name]) for name in first)


def test_rounds_and_secrets_play_other_episodes() -> None:
    def trained(round: int, secret: bytes) -> State:
        learner = task(secret=Secret(secret, "s-1"))
        *_, last = learner.trajectory(learner.initial_state, SGD, iterations=5, period=2, round=round)
        return kept(last.state)

    one, again = trained(1, b"a"), trained(1, b"a")
    assert all(torch.equal(one[name], again[name]) for name in one)
    for other in (trained(2, b"a"), trained(1, b"b")):
        assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_test_tells_the_cumulative_reward() -> None:
    learner = task()
    returns = learner.test_returns(learner.initial_state)
    assert list(returns) == ["I"]
    assert 8 < returns["I"] <= 500
    assert learner.test_returns(learner.initial_state) == returns


@pytest.mark.parametrize(("shape", "actions"), [((5,), 2), ((4,), 3)])
def test_a_policy_of_other_spaces_does_not_fit(shape: tuple[int, ...], actions: int) -> None:
    with pytest.raises(TaskMismatch, match=r"does not fit CartPole-v1: expected observations of 4 numbers, 2 actions"):
        task(policy(input_shape=shape, outputs=actions))


def test_weights_that_are_not_finite_have_no_return() -> None:
    learner = task()
    broken = kept(learner.initial_state)
    next(iter(broken.values()))[:] = float("nan")
    assert learner.losses(broken).isnan().all()
    with pytest.raises(TrainingDiverged, match="scores diverged in round 3 at iteration 0"):
        list(learner.trajectory(broken, SGD, iterations=5, period=2, round=3))


def test_a_return_above_the_best_is_an_error() -> None:
    bandit = Bandit()
    bandit.best_return = lambda discount: 0.5  # type: ignore[method-assign]
    learner = task(policy(input_shape=(2,)), EnvironmentSet(bandit, np.full(1, np.nan)), evaluation_episodes=64)
    with pytest.raises(InvalidValue, match="raise best_return"):
        learner.losses(learner.initial_state)


@pytest.mark.parametrize(
    "changes",
    [
        {"discount": 0.0},
        {"discount": 1.01},
        {"batch_size": 1},
        {"evaluation_episodes": 0},
        {"evaluation_episodes": 10**6},
    ],
)
def test_numbers_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        task(**changes)
