"""Environments to learn to act in: where a party's games come from, and how many of them are played at once."""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.environments.config import EnvironmentConfig, Fixed, Scaled, Uniform
    from comity.environments.rollouts import play
    from comity.environments.sets import EnvironmentSet, load_environments, load_game
    from comity.environments.vector_env import Draws, Environment, Episodes, Policy, VectorEnv
else:
    __getattr__ = lazily(
        __name__,
        {
            "config": ["EnvironmentConfig", "Fixed", "Scaled", "Uniform"],
            "rollouts": ["play"],
            "sets": ["EnvironmentSet", "load_environments", "load_game"],
            "vector_env": ["Draws", "Environment", "Episodes", "Policy", "VectorEnv"],
        },
    )

__all__ = [
    "Draws",
    "Environment",
    "EnvironmentConfig",
    "EnvironmentSet",
    "Episodes",
    "Fixed",
    "Policy",
    "Scaled",
    "Uniform",
    "VectorEnv",
    "load_environments",
    "load_game",
    "play",
]
