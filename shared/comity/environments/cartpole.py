"""Gymnasium's CartPole-v1 (Barto et al. 1983), thousands of carts at a time.

The same operations on the same float64 numbers in the same order as `gymnasium.envs.classic_control.CartPoleEnv.step`, so
that every state is Gymnasium's to the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.typing import NDArray

GRAVITY = 9.8
CART_MASS = 1.0
POLE_MASS = 0.1
TOTAL_MASS = POLE_MASS + CART_MASS
HALF_LENGTH = 0.5
FORCE = 10.0
STEP_S = 0.02
FARTHEST = 2.4
STEEPEST = 12 * 2 * math.pi / 360
START = 0.05
"""Every coordinate starts within this distance of 0."""


class CartPole:
    """CartPole-v1; its parameter is `length`, which is half the pole's length, in meters.

    Gymnasium keeps the pole's mass times that length apart, as `polemass_length`; here the two cannot disagree.
    """

    name = "CartPole-v1"
    features = 4
    actions = 2
    horizon = 500

    def best_return(self, discount: float) -> float:
        """The pole stays up for all of the steps, with a reward of 1 for each."""
        total, worth = 0.0, 1.0
        for _ in range(self.horizon):
            # As rollouts add them up, so that the best episode reaches it exactly.
            total += worth
            worth *= discount
        return total

    def starts(self, episodes: int, generator: np.random.Generator) -> NDArray[Any]:
        """Position, velocity, angle and angular velocity, each uniform in [-0.05, 0.05)."""
        return generator.uniform(-START, START, (episodes, self.features))

    def begin(self, parameters: Float[ndarray, " episodes"], starts: NDArray[Any]) -> CartPoleVectorEnv:
        """Begins an episode with a pole of each half length, which is above 0; NaN stands for 0.5."""
        return CartPoleVectorEnv(np.where(np.isnan(parameters), HALF_LENGTH, parameters), starts)


class CartPoleVectorEnv:
    """Carts with poles of different lengths.

    Args:
        lengths: Half lengths of the poles, float64.
        starts: Where they start, `[carts, 4]`.
    """

    def __init__(self, lengths: Float[ndarray, " playing"], starts: Float[ndarray, "playing 4"]) -> None:
        self._length = lengths
        self._polemass_length = POLE_MASS * lengths
        # A copy, also of a single cart: steps write into it.
        self._state = np.array(starts.T, order="C")

    @property
    def observations(self) -> Float[ndarray, "playing 4"]:
        """Position, velocity, angle and angular velocity, float32."""
        return self._state.T.astype(np.float32, order="C")

    def step(self, actions: Int[ndarray, " playing"]) -> tuple[Float[ndarray, " playing"], Bool[ndarray, " playing"]]:
        """Pushes every cart to the left (0) or to the right (1)."""
        x, x_dot, theta, theta_dot = self._state
        force = np.where(actions == 1, FORCE, -FORCE)
        cosine, sine = np.cos(theta), np.sin(theta)
        push = (force + self._polemass_length * np.square(theta_dot) * sine) / TOTAL_MASS
        theta_acc = (GRAVITY * sine - cosine * push) / (
            self._length * (4.0 / 3.0 - POLE_MASS * np.square(cosine) / TOTAL_MASS)
        )
        x_acc = push - self._polemass_length * theta_acc * cosine / TOTAL_MASS
        # Each coordinate moves by the rate before the step, so rates move last.
        x += STEP_S * x_dot
        theta += STEP_S * theta_dot
        x_dot += STEP_S * x_acc
        theta_dot += STEP_S * theta_acc
        return np.ones(len(x)), (np.abs(x) > FARTHEST) | (np.abs(theta) > STEEPEST)

    def keep(self, playing: Bool[ndarray, " playing"]) -> None:
        """Goes on with these carts alone."""
        self._state = self._state[:, playing]
        self._length = self._length[playing]
        self._polemass_length = self._polemass_length[playing]
