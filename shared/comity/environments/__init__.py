"""Environments to learn to act in: where a party's games come from, and how many of them are played at once."""

from comity.environments.config import Arena, EnvironmentConfig, Fixed, Scaled, Uniform, load_arena
from comity.environments.games import Draws, Environment, Episodes, Games, Policy
from comity.environments.rollouts import play

__all__ = [
    "Arena",
    "Draws",
    "Environment",
    "EnvironmentConfig",
    "Episodes",
    "Fixed",
    "Games",
    "Policy",
    "Scaled",
    "Uniform",
    "load_arena",
    "play",
]
