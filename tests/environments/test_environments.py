"""VectorEnv by configuration, their chance, and environments that do not fit."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from comity.environments import Draws, EnvironmentConfig, Scaled, Uniform, load_environments, play
from comity.environments.cartpole import CartPole
from comity.environments.gymnasium_vector_env import GymnasiumEnvironment, make_named
from comity.errors import InvalidValue, NonFiniteValue, TaskMismatch


def even(seen: np.ndarray) -> np.ndarray:
    return np.zeros((len(seen), 2))


def config(**changes: Any) -> EnvironmentConfig:
    values = {"source": "gymnasium:CartPole-v1", "parameter": "length", "values": Uniform(low=4, high=5), "games": 5}
    return EnvironmentConfig.model_validate(values | changes)


def test_parameters_come_from_the_seed() -> None:
    one, same, other = load_environments(config()), load_environments(config()), load_environments(config(seed=1))
    assert np.array_equal(one.parameters, same.parameters)
    assert not np.array_equal(one.parameters, other.parameters)
    assert len(one.parameters) == 5
    assert ((one.parameters >= 4) & (one.parameters < 5)).all()


def test_tests_draw_from_distributions_of_their_own() -> None:
    uneven = {"name": "uniform", "low": 4, "high": 5, "share": 0.8, "otherwise": {"low": 0.1, "high": 4}}
    beta = Scaled(a=5, b=1, low=10, high=40)
    tests = load_environments(
        config(tests={"I": Uniform(low=0.1, high=5), "II": uneven, "beta": beta}, test_games=2000)
    ).tests
    assert abs(np.mean(tests["II"] >= 4) - 0.8) < 0.04
    assert abs(np.mean(tests["beta"]) - 35) < 0.5
    assert not np.array_equal(tests["I"], tests["II"])


@pytest.mark.parametrize(
    "changes",
    [
        {"parameter": None},
        {"values": None},
        {"values": {"name": "uniform", "low": 5, "high": 4}},
        {"values": {"name": "uniform", "low": 4, "high": 5, "share": 0.5}},
        {"games": 0},
        {"source": "cartpole"},
        {"values": {"name": "fixed", "value": float("nan")}},
    ],
)
def test_settings_that_do_not_go_together(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameter": "weight"}, "expected length"),
        ({"values": {"name": "uniform", "low": -1, "high": 1}}, "above 0"),
        ({"best_return": 3.0}, "is known"),
        ({"source": "gymnasium:MountainCar-v0"}, "best_return"),
        ({"source": "gymnasium:MountainCar-v0", "best_return": 0.0}, "no number 'length'"),
        ({"source": "gymnasium:NoSuchThing-v0", "best_return": 0.0}, "cannot make"),
    ],
)
def test_environments_that_cannot_be_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        load_environments(config(**changes))


def test_continuous_actions_do_not_fit() -> None:
    with pytest.raises(TaskMismatch, match=r"actions of Pendulum-v1.*expected Discrete"):
        make_named("Pendulum-v1", None, 0.0)


class Strange(gymnasium.Env[Any, Any]):
    """An environment that is not as it should be."""

    def __init__(self, observation: Any, reward: float = 0.0) -> None:
        self.observation_space = observation
        self.action_space = spaces.Discrete(2)
        self.spec = gymnasium.spec("CartPole-v1")
        self.reward = reward

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(2), self.reward, False, True, {}


def test_discrete_observations_do_not_fit() -> None:
    with pytest.raises(TaskMismatch, match="expected a Box of floats, received Discrete"):
        GymnasiumEnvironment("strange", lambda: Strange(spaces.Discrete(3)), None, 0.0)


def test_an_environment_without_a_time_limit_does_not_fit() -> None:
    strange = Strange(spaces.Box(-1, 1, (2,)))
    strange.spec = None
    with pytest.raises(TaskMismatch, match="may never end"):
        GymnasiumEnvironment("strange", lambda: strange, None, 0.0)


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_an_error(reward: float) -> None:
    environment = GymnasiumEnvironment("strange", lambda: Strange(spaces.Box(-1, 1, (2,)), reward), None, 0.0)
    with pytest.raises(NonFiniteValue, match="strange gave a reward that is not finite"):
        play(environment, Draws.make(environment, np.full(2, np.nan), 0), even)


def test_gymnasiums_own_environments_are_played_as_it_plays_them() -> None:
    environment = make_named("Acrobot-v1", "LINK_LENGTH_1", 0.0)
    draws = Draws.make(environment, np.array([0.5, np.nan]), 1)
    first = play(environment, draws, lambda seen: np.zeros((len(seen), 3)), discount=0.5, record=True)
    again = play(environment, draws, lambda seen: np.zeros((len(seen), 3)), discount=0.5, record=True)
    assert np.array_equal(first.observations, again.observations)
    game = gymnasium.make("Acrobot-v1")
    game.unwrapped.LINK_LENGTH_1 = 0.5
    observation, _ = game.reset(seed=int(draws.starts[0]))
    total, worth = 0.0, 1.0
    for seen, action in zip(first.observations[first.episode == 0], first.actions[first.episode == 0], strict=True):
        assert np.array_equal(observation, seen)
        observation, reward, *_ = game.step(int(action))
        total, worth = total + worth * float(reward), worth / 2
    assert total == first.returns[0]


@given(seed=st.integers(0, 2**63 - 1), chosen=st.lists(st.integers(0, 11), min_size=1, max_size=12, unique=True))
def test_an_episode_is_the_same_whoever_plays_beside_it(seed: int, chosen: list[int]) -> None:
    cartpole = CartPole()
    draws = Draws.make(cartpole, np.linspace(0.2, 5, 12), seed)
    slope = np.random.default_rng(seed).normal(size=(4, 2))
    whole = play(cartpole, draws, lambda seen: seen.astype(np.float64) @ slope, discount=0.9)
    part = play(cartpole, draws.select(np.array(chosen)), lambda seen: seen.astype(np.float64) @ slope, discount=0.9)
    assert np.array_equal(part.returns, whole.returns[chosen])


def test_actions_are_draws_from_the_policy() -> None:
    cartpole = CartPole()
    draws = Draws.make(cartpole, np.full(2000, 0.5), 0)
    episodes = play(cartpole, draws, lambda seen: np.tile(np.log([0.25, 0.75]), (len(seen), 1)), record=True)
    steps = len(episodes.actions)
    assert steps > 10_000
    assert abs(episodes.actions.mean() - 0.75) < 4 * np.sqrt(0.25 * 0.75 / steps)


def test_scores_that_are_not_finite_have_no_return_and_leave_others_alone() -> None:
    cartpole = CartPole()
    draws = Draws.make(cartpole, np.full(8, 0.5), 0)

    def broken(seen: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(seen), 2))
        scores[seen[:, 0] > 0.03] = np.nan
        return scores

    sound, hurt = play(cartpole, draws, even), play(cartpole, draws, broken)
    lost = np.isnan(hurt.returns)
    assert 0 < lost.sum() < 8
    assert np.array_equal(hurt.returns[~lost], sound.returns[~lost])
