"""Gymnasium's LunarLander-v3 (extra `box2d`), by the power of its main engine."""

from __future__ import annotations

import warnings
from threading import Lock
from typing import Any

import gymnasium

from comity.environments.gymnasium_vector_env import GymnasiumEnvironment
from comity.errors import InvalidValue

NAME = "LunarLander-v3"

BEST_RETURN = 400.0
"""The shaping in the rewards adds up to the distance, speed and tilt that an episode begins with, at most 260 points, and 20
for both legs; coming to rest is worth 100. Fuel only costs. A discount in [0, 1] takes from each part."""

_engine = Lock()


def lunar_lander() -> GymnasiumEnvironment:
    """LunarLander-v3; its parameter is `main_engine_power`, 13 in Gymnasium.

    Raises:
        InvalidValue: The extra is not installed.
    """
    try:
        with warnings.catch_warnings():
            # SWIG's types warn when they are made; where warnings are errors that ends the process.
            warnings.simplefilter("ignore", DeprecationWarning)
            from gymnasium.envs.box2d import lunar_lander as module  # noqa: PLC0415
    except (ImportError, gymnasium.error.Error) as error:
        raise InvalidValue(
            f"{NAME} cannot be made: {error}", action="install the extra: pip install 'comity[box2d]'"
        ) from error

    def configure(game: Any, power: float) -> None:
        game.unwrapped.main_engine_power = power

    class PoweredLander(module.LunarLander):  # type: ignore[misc, unused-ignore]
        """A lander with an engine of its own: Gymnasium reads the power from a constant of the module in every step."""

        main_engine_power: float = module.MAIN_ENGINE_POWER

        def step(self, action: int) -> Any:
            with _engine:
                usual = module.MAIN_ENGINE_POWER
                module.MAIN_ENGINE_POWER = self.main_engine_power
                try:
                    return super().step(action)  # type: ignore[no-untyped-call, unused-ignore]
                finally:
                    module.MAIN_ENGINE_POWER = usual

    spec = gymnasium.spec(NAME)
    limit = spec.max_episode_steps or 1000

    def make() -> Any:
        lander = PoweredLander()
        lander.spec = spec
        return gymnasium.wrappers.TimeLimit(lander, limit)

    return GymnasiumEnvironment(NAME, make, configure, BEST_RETURN)
