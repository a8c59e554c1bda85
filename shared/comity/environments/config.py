"""What a node's configuration says about its games. Light: reading a configuration imports no gymnasium."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Fixed(_Config):
    """The same value in every game."""

    name: Literal["fixed"] = "fixed"
    value: float


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
