"""What a node's configuration says about its games."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from comity.environments.cartpole import CartPole
from comity.environments.gymnasium_vector_env import make_named
from comity.environments.lunar_lander import lunar_lander
from comity.environments.vector_env import Environment
from comity.errors import InvalidValue
from comity.randomness import derive

_PARAMETERS = {"CartPole-v1": "length", "LunarLander-v3": "main_engine_power"}


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Fixed(_Config):
    """The same value in every game."""

    name: Literal["fixed"] = "fixed"
    value: float

    def draw(self, games: int, generator: np.random.Generator) -> Float[ndarray, " games"]:
        """The parameters of some games, float64."""
        del generator
        return np.full(games, self.value)


class Uniform(_Config):
    """Evenly between two values.

    Attributes:
        low: Least value.
        high: Greatest value, above `low`.
        otherwise: Where the parameter comes from in the remaining games, with probability 1 - `share`.
        share: Probability of [low, high), in (0, 1].
    """

    name: Literal["uniform"] = "uniform"
    low: float
    high: float
    share: float = Field(default=1.0, gt=0, le=1)
    otherwise: Uniform | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Uniform:
        if not self.low < self.high:
            raise ValueError("low is below high")
        if (self.share < 1) != (self.otherwise is not None):
            raise ValueError("a share below 1 needs `otherwise`, and a share of 1 has none")
        return self

    def draw(self, games: int, generator: np.random.Generator) -> Float[ndarray, " games"]:
        """The parameters of some games, float64."""
        values = generator.uniform(self.low, self.high, games)
        if self.otherwise is None:
            return values
        others = self.otherwise.draw(games, generator)
        return np.where(generator.random(games) < self.share, values, others)


class Scaled(_Config):
    """A Beta variable, stretched and moved: `low + (high - low) * Beta(a, b)`.

    Attributes:
        a: First shape, above 0.
        b: Second shape, above 0.
        low: Least value.
        high: Greatest value.
    """

    name: Literal["beta"] = "beta"
    a: float = Field(gt=0)
    b: float = Field(gt=0)
    low: float
    high: float

    def draw(self, games: int, generator: np.random.Generator) -> Float[ndarray, " games"]:
        """The parameters of some games, float64."""
        return self.low + (self.high - self.low) * generator.beta(self.a, self.b, games)


Parameters = Annotated[Fixed | Uniform | Scaled, Field(discriminator="name")]


class EnvironmentConfig(_Config):
    """A node's games.

    Attributes:
        source: `gymnasium:<id>`, for example `gymnasium:CartPole-v1`.
        parameter: What the games differ in: `length` of CartPole (half the pole's, in meters), `main_engine_power` of
            LunarLander, a number that another environment has as an attribute; None for none.
        values: Where its values come from; needed with `parameter`.
        games: Environments that the node has, each with a parameter of its own that stays the same.
        tests: Other games, by name, to tell how well a policy does elsewhere.
        test_games: Environments in each of those.
        best_return: A return that no episode exceeds; needed for environments other than the two named above.
        seed: Decides the parameters.
    """

    source: str = Field(pattern=r"^gymnasium:.+$")
    parameter: str | None = None
    values: Parameters | None = None
    games: int = Field(default=1, ge=1, le=1000)
    tests: dict[str, Parameters] = {}
    test_games: int = Field(default=100, ge=1, le=10_000)
    best_return: float | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _values_for_a_parameter(self) -> EnvironmentConfig:
        if (self.parameter is None) != (self.values is None) or (self.parameter is None and self.tests):
            raise ValueError("parameter and values come together, and tests need both")
        return self


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
        return _positive(values.draw(games, np.random.default_rng(derive(config.seed, "games", *purpose))), config)

    tests = {name: draw(values, config.test_games, "test", name) for name, values in config.tests.items()}
    return EnvironmentSet(environment, draw(config.values, config.games), tests)


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
    if name == CartPole.name:
        return CartPole()
    return lunar_lander()


def _positive(values: Float[ndarray, " games"], config: EnvironmentConfig) -> Float[ndarray, " games"]:
    # Lengths and powers are; other environments' numbers may be anything.
    if config.source.partition(":")[2] in _PARAMETERS and not (values > 0).all():
        raise InvalidValue(f"The values of {config.parameter}", expected="above 0", received=values.min())
    return values
