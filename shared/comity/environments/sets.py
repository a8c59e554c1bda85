"""A party's games, as its configuration says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from comity.environments.cartpole import CartPole
from comity.environments.config import EnvironmentConfig, Fixed, Scaled, Uniform
from comity.environments.gymnasium_vector_env import make_named
from comity.environments.lunar_lander import lunar_lander
from comity.environments.vector_env import Environment
from comity.errors import InvalidValue
from comity.randomness import derive

_PARAMETERS = {"CartPole-v1": "length", "LunarLander-v3": "main_engine_power"}


@dataclass(frozen=True, eq=False)
class EnvironmentSet:
    """A party's games.

    Attributes:
        environment: What is played.
        parameters: The parameter of each of the party's games β, float64; NaN for the environment's own.
        tests: The parameters of other games, by the name of the test.
    """

    environment: Environment
    parameters: Float[ndarray, " games"]
    tests: Mapping[str, Float[ndarray, " games"]] = field(default_factory=dict)


def load_environments(config: EnvironmentConfig) -> EnvironmentSet:
    """Makes a node's games.

    Raises:
        InvalidValue: There is no such environment here, or a setting does not fit it.
        TaskMismatch: A policy of scores cannot act in it.
    """
    environment = _environment(config)
    if config.values is None:
        return EnvironmentSet(environment, np.full(config.games, np.nan))

    def draw(values: Fixed | Uniform | Scaled, games: int, *purpose: str) -> Float[ndarray, " games"]:
        return _positive(_drawn(values, games, np.random.default_rng(derive(config.seed, "games", *purpose))), config)

    tests = {name: draw(values, config.test_games, "test", name) for name, values in config.tests.items()}
    return EnvironmentSet(environment, draw(config.values, config.games), tests)


def load_game(source: str) -> Environment:
    """A game to be played as it is; unlike a training, which needs losses, it needs no bound of its returns.

    Args:
        source: As a node's configuration has it: `gymnasium:Acrobot-v1`.

    Raises:
        InvalidValue: There is no such environment here.
        TaskMismatch: A policy of scores cannot act in it.
    """
    name = source.partition(":")[2]
    return _known(name) if name in _PARAMETERS else make_named(name, None, math.inf)


def _environment(config: EnvironmentConfig) -> Environment:
    name = config.source.partition(":")[2]
    known = _PARAMETERS.get(name)
    if known is None:
        if config.best_return is None:
            raise InvalidValue(
                f"Nothing is known of the returns of {name}",
                expected="best_return, a return that no episode exceeds",
                received="none",
                action="set best_return; a generous one does no harm",
            )
        return make_named(name, config.parameter, config.best_return)
    if config.parameter not in {None, known}:
        raise InvalidValue(f"The parameter of {name}", expected=known, received=config.parameter)
    if config.best_return is not None:
        raise InvalidValue(f"The best return of {name} is known", expected="none", received=config.best_return)
    return _known(name)


def _known(name: str) -> Environment:
    return CartPole() if name == CartPole.name else lunar_lander()


def _positive(values: Float[ndarray, " games"], config: EnvironmentConfig) -> Float[ndarray, " games"]:
    # Lengths and powers are; other environments' numbers may be anything.
    if config.source.partition(":")[2] in _PARAMETERS and not (values > 0).all():
        raise InvalidValue(f"The values of {config.parameter}", expected="above 0", received=values.min())
    return values


def _drawn(values: Fixed | Uniform | Scaled, games: int, generator: np.random.Generator) -> Float[ndarray, " games"]:
    """The parameters of some games, float64."""
    match values:
        case Fixed():
            return np.full(games, values.value)
        case Scaled():
            return values.low + (values.high - values.low) * generator.beta(values.a, values.b, games)
        case Uniform():
            drawn = generator.uniform(values.low, values.high, games)
            if values.otherwise is None:
                return drawn
            others = _drawn(values.otherwise, games, generator)
            return np.where(generator.random(games) < values.share, drawn, others)
