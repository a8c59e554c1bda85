"""LunarLander by engine power, where the extra `box2d` is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from comity.environments import Draws, EnvironmentConfig, Uniform, load_environments, play
from comity.environments.lunar_lander import BEST_RETURN, lunar_lander
from comity.errors import InvalidValue

with_box2d = pytest.mark.skipif(importlib.util.find_spec("Box2D") is None, reason="the extra box2d is not installed")


def falling(seen: np.ndarray) -> np.ndarray:
    return np.tile([9.0, -9.0, -9.0, -9.0], (len(seen), 1))


def burning(seen: np.ndarray) -> np.ndarray:
    return np.tile([-9.0, -9.0, 99.0, -9.0], (len(seen), 1))


@with_box2d
def test_the_engine_is_as_strong_as_it_is_set() -> None:
    environment = lunar_lander()
    # Not before: the first import warns in a way that ends a process whose warnings are errors.
    from gymnasium.envs.box2d import lunar_lander as module  # noqa: PLC0415

    usual = module.MAIN_ENGINE_POWER
    seeds = np.full(4, 7)
    noise = np.zeros((environment.horizon, 4, 4), dtype=np.float32)
    draws = Draws(np.array([10.0, 40.0, usual, np.nan]), seeds, noise)
    flights = play(environment, draws, burning, record=True)
    # Twenty steps of full thrust: the stronger engine has lifted its lander higher.
    heights = [flights.observations[flights.episode == flight][20, 1] for flight in range(4)]
    assert heights[0] < heights[2] == heights[3] < heights[1]
    assert usual == module.MAIN_ENGINE_POWER


@with_box2d
def test_returns_stay_below_the_best() -> None:
    environments = load_environments(
        EnvironmentConfig(
            source="gymnasium:LunarLander-v3", parameter="main_engine_power", values=Uniform(low=10, high=15), games=10
        )
    )
    draws = Draws.make(environments.environment, environments.parameters, 0)
    for policy in (falling, burning):
        returns = play(environments.environment, draws, policy).returns
        assert np.isfinite(returns).all()
        assert (returns < BEST_RETURN).all()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gymnasium.envs.box2d", None)
    monkeypatch.delattr("gymnasium.envs.box2d", raising=False)
    with pytest.raises(InvalidValue, match=r"comity\[box2d\]"):
        lunar_lander()
