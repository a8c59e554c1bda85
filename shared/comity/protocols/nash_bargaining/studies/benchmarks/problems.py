"""Bargaining games to measure solvers on: of the kinds that the golden cases of the tests are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from comity.protocols.nash_bargaining import gram_matrix
from comity.randomness import derive, generator

SIZES = (2, 3, 5, 10, 20)


@dataclass(frozen=True)
class Problem:
    """A game.

    Attributes:
        name: What is special about it.
        gram: K.
        power: p.
    """

    name: str
    gram: Tensor
    power: Tensor


_KINDS = (
    "random",
    "equal powers",
    "correlated",
    "conflict .9",
    "conflict 1 − 1e-6",
    "lengths 1e4",
    "lengths 1e8, conflict",
    "duplicate",
    "nearly a duplicate",
    "tiny gradient",
    "tiny powers",
)


def problems(sizes: tuple[int, ...] = SIZES) -> list[Problem]:
    """Games of each size and kind, the same ones every time."""
    return [_problem(players, kind) for players in sizes for kind in _KINDS]


def _problem(players: int, kind: str) -> Problem:  # noqa: C901 - a case a kind
    draws = generator(derive(0, "bargaining problems", players, kind))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=draws)

    gradients = normal(players, 64)
    power = torch.rand(players, dtype=torch.float64, generator=draws) + 0.05
    spread = torch.linspace(-0.5, 0.5, players, dtype=torch.float64).unsqueeze(1)
    match kind:
        case "equal powers":
            power = torch.ones(players, dtype=torch.float64)
        case "correlated":
            gradients += 3 * gradients[:1].clone()
        case "conflict .9":
            gradients[1] = -0.9 * gradients[0] + 0.44 * gradients[1]
        case "conflict 1 − 1e-6":
            gradients[1] = -gradients[0] + math.sqrt(2e-6) * gradients[1]
        case "lengths 1e4":
            gradients *= 1e4**spread
        case "lengths 1e8, conflict":
            gradients[1] = -0.9 * gradients[0] + 0.44 * gradients[1]
            gradients *= 1e8**spread
        case "duplicate":
            gradients[1:] = gradients[0]
        case "nearly a duplicate":
            gradients[1:] = gradients[0] + 1e-6 * gradients[1:]
        case "tiny gradient":
            gradients[-1] *= 1e-8
        case "tiny powers":
            power = 10 ** (4 * (power - 1))
    return Problem(f"{kind}, N={players}", gram_matrix(gradients), power / power.sum())
