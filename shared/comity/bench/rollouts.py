"""Rollouts: episodes a second of a policy in many games at once, against one game that Gymnasium makes."""

from __future__ import annotations

import time
from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.environments import Draws, Policy, play
from comity.environments.cartpole import CartPole
from comity.models import build

_LENGTHS = {"Gymnasium's pole, 0.5 m": 0.5, "the learner's, 4.5 m": 4.5}
"""Half lengths: a short pole falls after 22 steps, a long one after 77, without training."""


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark: CartPole, the untrained policy of the experiments, one thread.

    Each episode is a whole one under the same policy on both sides. The chance of the batched episodes is drawn before they
    are played, as a session does once for all of its evaluations; a row of its own has the drawing too.

    Args:
        quick: Few episodes, once.
    """
    many, few, repeats = (64, 4, 1) if quick else (3200, 60, 5)
    model = build("policy-mlp", input_shape=(4,), outputs=2, options={"hidden": 4}, seed=0).double().eval()
    policy = _scores(model)
    rows: list[Row] = []
    targets: list[Target] = []
    for name, length in _LENGTHS.items():
        cartpole, lengths = CartPole(), np.full(many, length)
        draws = Draws.make(cartpole, lengths, 0)

        def batched(cartpole: CartPole = cartpole, draws: Draws = draws) -> float:
            return _rate(many, lambda: play(cartpole, draws, policy))

        def drawn(cartpole: CartPole = cartpole, lengths: Float[ndarray, " games"] = lengths) -> float:
            return _rate(many, lambda: play(cartpole, Draws.make(cartpole, lengths, 0), policy))

        def training(cartpole: CartPole = cartpole, length: float = length) -> float:
            batch = np.full(32, length)
            return _rate(32, lambda: play(cartpole, Draws.make(cartpole, batch, 0), policy, record=True))

        def coins(cartpole: CartPole = cartpole, draws: Draws = draws) -> float:
            return _rate(many, lambda: play(cartpole, draws, lambda seen: np.zeros((len(seen), 2))))

        single = _Single(length, policy)
        cases: dict[str, Callable[[], float]] = {
            "one gym.make environment": lambda single=single: _rate(few, lambda: single.play(few)),  # type: ignore[misc]
            f"{many} at once": batched,
            f"{many} at once, chance drawn too": drawn,
            "32 at once, chance drawn and steps kept, as a training step": training,
            "one gym.make environment, coin tosses for a policy": lambda single=single: _rate(  # type: ignore[misc]
                few, lambda: single.play(few, coins=True)
            ),
            f"{many} at once, coin tosses for a policy": coins,
        }
        with one_thread():
            medians = interleaved(cases, repeats=repeats)
        found = {label: Row(f"{name}: {label}", rate, "1/s") for label, rate in medians.items()}
        one, tossed = found["one gym.make environment"], found["one gym.make environment, coin tosses for a policy"]
        for label, row in found.items():
            bare = row is one or row is tossed
            rows.append(row if bare else row.over(tossed if "coin" in label else one))
        ratio = medians[f"{many} at once"] / one.median
        targets.append(Target.at_least(f"{name}: {many} episodes at once, over one gym.make environment", 20, ratio))
    return Report("rollouts", describe(), rows, targets)


class _Single:
    """One environment of Gymnasium's, and an episode after the other.

    Args:
        length: Half length of the pole, in meters.
        policy: Chooses the actions.
    """

    def __init__(self, length: float, policy: Policy) -> None:
        self._game = gymnasium.make("CartPole-v1")
        inner = self._game.unwrapped
        inner.length, inner.polemass_length = length, inner.masspole * length  # type: ignore[attr-defined, unused-ignore]
        self._policy = policy
        self._random = np.random.default_rng(0)

    def play(self, episodes: int, *, coins: bool = False) -> None:
        """Plays some episodes to their ends."""
        for _ in range(episodes):
            seen, _ = self._game.reset()
            ended = False
            while not ended:
                scores = np.zeros(2) if coins else self._policy(seen[np.newaxis])[0]
                action = int(np.argmax(scores + self._random.gumbel(size=2)))
                seen, _, fallen, over, _ = self._game.step(action)
                ended = fallen or over


def _scores(model: nn.Module) -> Policy:
    @torch.inference_mode()
    def scores(seen: Float[ndarray, "playing features"]) -> Float[ndarray, "playing actions"]:
        return np.asarray(model(torch.from_numpy(seen).double()))

    return scores


def _rate(episodes: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return episodes / (time.perf_counter() - began)
