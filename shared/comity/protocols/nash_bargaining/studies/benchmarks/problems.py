"""Bargaining games to measure solvers on: of the kinds that the golden cases of the tests are."""

from __future__ import annotations

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


def problems(sizes: tuple[int, ...] = SIZES) -> list[Problem]:
    """Games of each size and kind, the same ones every time."""
    found: list[Problem] = []
    for players in sizes:
        for kind in (
            "random",
            "equal powers",
            "correlated",
            "conflict .9",
            "lengths 10^±1",
            "lengths 10^±3",
            "tiny power",
        ):
            draws = generator(derive(0, "bargaining problems", players, kind))
            gradients = torch.randn(players, 64, dtype=torch.float64, generator=draws)
            power = torch.rand(players, dtype=torch.float64, generator=draws) + 0.05
            match kind:
                case "equal powers":
                    power = torch.ones(players, dtype=torch.float64)
                case "correlated":
                    gradients += 3 * gradients[:1]
                case "conflict .9":
                    gradients[1] = -0.9 * gradients[0] + 0.44 * gradients[1]
                case "lengths 10^±1" | "lengths 10^±3":
                    spread = 1.0 if kind.endswith("1") else 3.0
                    gradients *= 10 ** (spread * (2 * torch.rand(players, 1, dtype=torch.float64, generator=draws) - 1))
                case "tiny power":
                    power[-1] = 1e-4
            found.append(Problem(f"{kind}, N={players}", gram_matrix(gradients), power / power.sum()))
    return found
