"""Environments to learn to act in: where a party's games come from, and how many of them are played at once."""

from comity.environments.config import EnvironmentConfig, EnvironmentSet, Fixed, Scaled, Uniform, load_environments
from comity.environments.rollouts import play
from comity.environments.vector_env import Draws, Environment, Episodes, Policy, VectorEnv

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
    "play",
]
