"""Shapley values of coalitions whose worth somebody measures: the extended contribution index (ECI)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

Worth = Callable[[tuple[int, ...]], float]
"""The worth of a coalition, its players ascending."""


def shapley_values(worth: Worth, players: int) -> Float[Tensor, " players"]:
    """Exact Shapley values, float64; measures each of the 2^players coalitions once."""
    known = {
        coalition: worth(coalition) for size in range(players + 1) for coalition in combinations(range(players), size)
    }
    values = torch.zeros(players, dtype=torch.float64)
    for coalition, value in known.items():
        for player in range(players):
            if player not in coalition:
                joined = tuple(sorted((*coalition, player)))
                share = 1 / (players * math.comb(players - 1, len(coalition)))
                values[player] += share * (known[joined] - value)
    return values


def sampled_shapley_values(
    worth: Worth, players: int, permutations: int, generator: torch.Generator
) -> Float[Tensor, " players"]:
    """Shapley values from random orders of joining, float64; a coalition that comes twice is measured once."""
    known: dict[tuple[int, ...], float] = {}

    def of(coalition: tuple[int, ...]) -> float:
        if coalition not in known:
            known[coalition] = worth(coalition)
        return known[coalition]

    values = torch.zeros(players, dtype=torch.float64)
    for _ in range(permutations):
        there: tuple[int, ...] = ()
        for player in torch.randperm(players, generator=generator).tolist():
            joined = tuple(sorted((*there, player)))
            values[player] += (of(joined) - of(there)) / permutations
            there = joined
    return values
