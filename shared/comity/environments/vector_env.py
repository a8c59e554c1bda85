"""What rollouts work on: environments, those that are running, and the chance in them.

An episode's chance is drawn before it is played: its environment's parameter, where it starts and, for every step, the
noise that turns the policy's scores into an action. Two policies that play the same draws meet the same luck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.typing import NDArray

Policy = Callable[[Float[ndarray, "playing features"]], Float[ndarray, "playing actions"]]
"""Scores (unnormalized log-probabilities, float64) of every action, for each observation (float32). A row of the answer
must not depend on the other rows, but for float64 rounding."""


class VectorEnv(Protocol):
    """Running episodes, all at the same step; those that end are taken out by `keep`."""

    @property
    def observations(self) -> Float[ndarray, "playing features"]:
        """What each running episode looks like now, float32."""

    def step(self, actions: Int[ndarray, " playing"]) -> tuple[Float[ndarray, " playing"], Bool[ndarray, " playing"]]:
        """Makes one step in each running episode.

        Returns:
            Rewards (float64), and which episodes ended with this step, other than by their length.
        """

    def keep(self, playing: Bool[ndarray, " playing"]) -> None:
        """Goes on with these episodes alone."""


class Environment(Protocol):
    """An environment with a parameter, of which many games can be on at once.

    Attributes:
        name: Its name.
        features: Length of an observation, flattened.
        actions: Number of actions, at least 2.
        horizon: Steps after which an episode is over at the latest.
    """

    name: str
    features: int
    actions: int
    horizon: int

    def best_return(self, discount: float) -> float:
        """A return that no episode exceeds: sum of rewards, each discounted by `discount` once a step."""

    def starts(self, episodes: int, generator: np.random.Generator) -> NDArray[Any]:
        """Draws where episodes start: an array with one row an episode, which only this environment reads."""

    def begin(self, parameters: Float[ndarray, " episodes"], starts: NDArray[Any]) -> VectorEnv:
        """Begins an episode of each parameter; NaN stands for the environment's own."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Everything that chance decides in some episodes.

    Attributes:
        parameters: The environment's parameter in each, float64.
        starts: Where each starts, as the environment drew it.
        noise: Gumbel noise, float32: the action of greatest score plus noise is a draw from the policy.
    """

    parameters: Float[ndarray, " episodes"]
    starts: NDArray[Any]
    noise: Float[ndarray, "horizon episodes actions"]

    @classmethod
    def make(cls, environment: Environment, parameters: Float[ndarray, " episodes"], seed: int) -> Draws:
        """Draws the chance of one episode for each parameter.

        Args:
            environment: The environment.
            parameters: Its parameters.
            seed: Decides everything, at or above 0.
        """
        generator = np.random.default_rng(seed)
        episodes = len(parameters)
        starts = environment.starts(episodes, generator)
        noise = generator.standard_exponential((environment.horizon, episodes, environment.actions), dtype=np.float32)
        # The logarithm of an exponential variable is Gumbel noise but for its sign; none may be infinite.
        np.maximum(noise, np.finfo(np.float32).tiny, out=noise)
        return cls(parameters, starts, np.negative(np.log(noise, out=noise), out=noise))

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.parameters)

    def select(self, episodes: Int[ndarray, " chosen"]) -> Draws:
        """The chance of some of the episodes."""
        return Draws(self.parameters[episodes], self.starts[episodes], self.noise[:, episodes])


@dataclass(frozen=True, eq=False)
class Episodes:
    """What happened in some episodes.

    Attributes:
        returns: Discounted sum of rewards of each, float64; NaN where the policy's scores were not finite.
        lengths: Steps of each, int64.
        observations: What the policy saw in each step, of all episodes, float32; empty where nothing was recorded.
        actions: What it did, int64.
        episode: Which episode the step belongs to, int64.
    """

    returns: Float[ndarray, " episodes"]
    lengths: Int[ndarray, " episodes"]
    observations: Float[ndarray, "steps features"]
    actions: Int[ndarray, " steps"]
    episode: Int[ndarray, " steps"]
