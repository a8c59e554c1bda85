"""What a policy that a session left reaches in games."""

from __future__ import annotations

import copy

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from comity.contract import Json
from comity.environments import Draws, load_game, play
from comity.errors import InvalidValue
from comity.node.artifacts.loading import SessionModel

EPISODES = 100
"""How many a test of a policy takes; always the same."""


def played(model: SessionModel, source: str) -> dict[str, Json]:
    """What a test of a policy says: `return`, the mean return of an episode, and `spread`, its standard deviation.

    Args:
        model: The policy.
        source: The game, as `[data] source` has it: `gymnasium:CartPole-v1`.

    Raises:
        InvalidValue: It is no game, or another than the policy was trained for.
    """
    if not source.startswith("gymnasium:"):
        raise InvalidValue(
            "the model is a policy, and is tested in games", expected="gymnasium:CartPole-v1, say", received=source
        )
    environment, shape = load_game(source), model.task.inputs.shape
    draws = Draws.make(environment, np.full(EPISODES, np.nan), 0)
    # As in a session: in float64 the rounding that a batch's size brings cannot turn an action.
    player = copy.deepcopy(model.network).double().eval()

    @torch.inference_mode()
    def scores(observations: Float[ndarray, "playing features"]) -> Float[ndarray, "playing actions"]:
        if observations.shape[1:] != tuple(shape):
            raise InvalidValue(
                f"{source} is another game than the policy is for",
                expected=f"observations of shape {tuple(shape)}",
                received=observations.shape[1:],
                action="name the game that it was trained in",
            )
        answer: torch.Tensor = player(torch.from_numpy(observations).double())
        return answer.numpy()

    returns = play(environment, draws, scores).returns
    return {"return": float(returns.mean()), "spread": float(returns.std(ddof=1))}
