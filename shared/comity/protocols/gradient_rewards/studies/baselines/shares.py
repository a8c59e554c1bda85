"""Which share of the aggregate each client gets, by what is known of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Shares = Float[Tensor, " clients"]
"""float64 in [0, 1]."""


def by_size(sizes: Sequence[int]) -> Shares:
    """Dataset-weighted download (DW): q_i = n_i / max n."""
    return by_value(torch.tensor(sizes, dtype=torch.float64))


def by_value(values: Float[Tensor, " clients"]) -> Shares:
    """Shares in proportion to values, 1 for the greatest; negative ones get nothing. All get 1 where none is above 0."""
    positive = values.double().clamp(min=0.0)
    greatest = positive.max()
    return positive / greatest if float(greatest) > 0 else torch.ones_like(positive)


def by_distance(differences: Float[Tensor, "clients parameters"], aggregate: Float[Tensor, " parameters"]) -> Shares:
    """Euclidean distance (EU): q_i = min_j d_j / d_i, with d the distances of plain updates from the server's.

    The paper says "proportional to the negative distance", which no share in [0, 1] can be; a linear map of it onto [0, 1]
    would leave the last client with nothing for ever, which the accuracies that the paper prints rule out.
    """
    distances = (differences.double() - aggregate.double()).norm(dim=1)
    least = distances.min()
    return torch.where(distances > 0, least / distances, 1.0)


def in_turn(round: int, clients: int, generator: torch.Generator) -> Shares:
    """Round robin (RR): one client a round gets everything, each once in as many rounds as there are clients.

    Args:
        round: From 1.
        clients: How many there are.
        generator: Gives the order; seeded alike in the rounds of one turn.
    """
    order = torch.randperm(clients, generator=generator)
    shares = torch.zeros(clients, dtype=torch.float64)
    shares[order[(round - 1) % clients]] = 1.0
    return shares


def update_reputation(
    reputation: Float[Tensor, " clients"], accuracies: Sequence[float], *, past: float = 0.5, steepness: float = 5.0
) -> Float[Tensor, " clients"]:
    """Reputation of collaborative fairness (CFFL, Lyu et al. 2020): c ← .5 c + .5 sinh(5 v / Σv), brought to a sum of 1.

    Args:
        reputation: c before; 0 for those who were expelled, who stay so. Equal ones begin.
        accuracies: v, validation accuracy with each client's own update alone, 0 to 1.
        past: Weight of the reputation before.
        steepness: How much steeper than the accuracies reputations grow.
    """
    here = reputation > 0
    values = torch.where(here, torch.tensor(accuracies, dtype=torch.float64), 0.0)
    shares = values / values.sum() if float(values.sum()) > 0 else here / here.sum()
    mixed = torch.where(here, past * reputation + (1 - past) * torch.sinh(steepness * shares), 0.0)
    return mixed / mixed.sum()


def expelled(reputation: Float[Tensor, " clients"], threshold: float = 1 / 3) -> Float[Tensor, " clients"]:
    """Reputation without those who fell below `threshold` / (clients that are left), brought to a sum of 1."""
    here = int((reputation > 0).sum())
    kept = torch.where(reputation < threshold / here, 0.0, reputation)
    total = float(kept.sum())
    return kept / total if total > 0 and math.isfinite(total) else reputation
