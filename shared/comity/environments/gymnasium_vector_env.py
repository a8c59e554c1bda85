"""Any environment that Gymnasium makes, one object a game."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.typing import NDArray

from comity.errors import InvalidValue, TaskMismatch

Configure = Callable[[Any, float], None]
"""Sets the parameter of an environment that Gymnasium made."""


class GymnasiumEnvironment:
    """An environment of Gymnasium's with a Box of observations and a Discrete set of actions.

    Only games that are still on are stepped; Gymnasium's own vector environments step those that have ended too.

    Args:
        name: Its name.
        make: Makes one game.
        configure: Sets the parameter of one; None where there is nothing to set.
        best_return: A return that no episode exceeds, whatever the discount.

    Raises:
        TaskMismatch: Its spaces are none that a policy of scores can act in, or nothing ends an episode.
    """

    def __init__(self, name: str, make: Callable[[], Any], configure: Configure | None, best_return: float) -> None:
        self.name = name
        self._make = make
        self._configure = configure
        self._best_return = best_return
        first = make()
        seen, done = first.observation_space, first.action_space
        if not isinstance(seen, spaces.Box) or not np.issubdtype(seen.dtype, np.floating):
            raise TaskMismatch(
                f"the observations of {name} do not fit a policy",
                expected="a Box of floats",
                received=seen,
                action="choose another environment",
            )
        if not isinstance(done, spaces.Discrete) or done.start != 0 or done.n <= 1:
            raise TaskMismatch(
                f"the actions of {name} do not fit a policy",
                expected="Discrete(2) or more, from 0",
                received=done,
                action="choose another environment",
            )
        horizon = first.spec.max_episode_steps if first.spec is not None else None
        if horizon is None:
            raise TaskMismatch(
                f"an episode of {name} may never end",
                expected="an environment that is registered with max_episode_steps",
                received="none",
                action="choose another environment",
            )
        self.features = int(np.prod(seen.shape))
        self.actions = int(done.n)
        self.horizon = int(horizon)
        self._idle = [first]

    def best_return(self, discount: float) -> float:
        """The return that was named."""
        del discount
        return self._best_return

    def starts(self, episodes: int, generator: np.random.Generator) -> NDArray[Any]:
        """A seed for each episode."""
        return generator.integers(2**31, size=episodes)

    def begin(self, parameters: Float[ndarray, " episodes"], starts: NDArray[Any]) -> GymnasiumVectorEnv:
        """Begins an episode of each parameter."""
        self._idle += [self._make() for _ in range(len(starts) - len(self._idle))]
        games = self._idle[: len(starts)]
        for game, parameter in zip(games, parameters, strict=True):
            if self._configure is not None and not np.isnan(parameter):
                self._configure(game, float(parameter))
        return GymnasiumVectorEnv(games, starts)


class GymnasiumVectorEnv:
    """Environments that are running.

    Args:
        games: One environment each.
        seeds: What each is reset with.
    """

    def __init__(self, games: list[Any], seeds: Int[ndarray, " playing"]) -> None:
        self._games = games
        first = [game.reset(seed=int(seed))[0] for game, seed in zip(games, seeds, strict=True)]
        self.observations: Float[ndarray, "playing features"] = _flat(first)

    def step(self, actions: Int[ndarray, " playing"]) -> tuple[Float[ndarray, " playing"], Bool[ndarray, " playing"]]:
        """Makes one step in each."""
        outcomes = [game.step(int(action)) for game, action in zip(self._games, actions, strict=True)]
        self.observations = _flat([outcome[0] for outcome in outcomes])
        rewards = np.array([outcome[1] for outcome in outcomes], dtype=np.float64)
        return rewards, np.array([outcome[2] or outcome[3] for outcome in outcomes])

    def keep(self, playing: Bool[ndarray, " playing"]) -> None:
        """Goes on with these games alone."""
        self._games = [game for game, goes_on in zip(self._games, playing, strict=True) if goes_on]
        self.observations = self.observations[playing]


def make_named(name: str, attribute: str | None, best_return: float) -> GymnasiumEnvironment:
    """An environment by Gymnasium's name for it.

    Args:
        name: For example `MountainCar-v0`.
        attribute: The number of the environment's that is its parameter; None for none.
        best_return: A return that no episode exceeds.

    Raises:
        InvalidValue: There is no such environment, it cannot be made here, or it has no such number.
        TaskMismatch: A policy of scores cannot act in it.
    """
    try:
        found = gymnasium.make(name).unwrapped
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise InvalidValue(
            f"Gymnasium cannot make {name!r}: {error}", action="correct the name or install what the environment needs"
        ) from error
    if attribute is None:
        return GymnasiumEnvironment(name, lambda: gymnasium.make(name), None, best_return)
    value = getattr(found, attribute, None)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidValue(
            f"{name} has no number {attribute!r}", expected="a number to set", received=type(value).__name__
        )

    def configure(game: Any, number: float) -> None:
        setattr(game.unwrapped, attribute, number)

    return GymnasiumEnvironment(name, lambda: gymnasium.make(name), configure, best_return)


def _flat(observations: list[Any]) -> Float[ndarray, "playing features"]:
    return np.stack([np.asarray(each, dtype=np.float32).reshape(-1) for each in observations])
