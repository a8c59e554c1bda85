"""Playing many episodes at once."""

from __future__ import annotations

import numpy as np

from comity import interruption
from comity.environments.vector_env import Draws, Environment, Episodes, Policy
from comity.errors import NonFiniteValue


def play(
    environment: Environment, draws: Draws, policy: Policy, *, discount: float = 1.0, record: bool = False
) -> Episodes:
    """Plays episodes to their ends, all of them a step at a time.

    Args:
        environment: Where.
        draws: Their chance.
        policy: Scores the actions.
        discount: What a step takes off the worth of later rewards, in [0, 1]; 1 for the cumulative reward.
        record: Whether to keep every step, for training.

    Raises:
        NonFiniteValue: The environment gave a reward that is NaN or infinite.
    """
    returns = np.zeros(len(draws))
    lengths = np.zeros(len(draws), dtype=np.int64)
    seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    playing = np.arange(len(draws))
    games = environment.begin(draws.parameters, draws.starts)
    worth = 1.0
    for step in range(environment.horizon):
        interruption.point()
        observations = games.observations
        scores = policy(observations)
        if not np.isfinite(scores).all():
            # Such a policy says nothing of what to do: its episode has no return, and goes no further.
            sound = np.asarray(np.isfinite(scores).all(axis=1))
            returns[playing[~sound]] = np.nan
            games.keep(sound)
            playing, observations, scores = playing[sound], observations[sound], scores[sound]
            if not len(playing):
                break
        actions = np.argmax(scores + draws.noise[step, playing], axis=1)
        rewards, ended = games.step(actions)
        if not np.isfinite(rewards).all():
            raise NonFiniteValue(
                f"{environment.name} gave a reward that is not finite",
                expected="finite rewards",
                received=rewards[~np.isfinite(rewards)][0],
                action="correct the environment's parameter",
            )
        if record:
            seen.append((observations, actions, playing))
        returns[playing] += worth * rewards
        lengths[playing] += 1
        worth *= discount
        if ended.any():
            goes_on = ~ended
            games.keep(goes_on)
            playing = playing[goes_on]
            if not len(playing):
                break
    if not seen:
        none = np.empty(0, dtype=np.int64)
        return Episodes(returns, lengths, np.empty((0, environment.features), dtype=np.float32), none, none)
    observations, actions, episode = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    return Episodes(returns, lengths, observations, actions, episode)
