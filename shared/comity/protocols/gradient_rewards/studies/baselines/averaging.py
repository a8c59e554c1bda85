"""Everybody gets everything: federated averaging, and q-fair federated learning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def data_weights(sizes: Sequence[int]) -> Float[Tensor, " clients"]:
    """Weights of federated averaging (McMahan et al. 2017): sample counts, brought to a sum of 1; float64."""
    weights = torch.tensor(sizes, dtype=torch.float64)
    return weights / weights.sum()


def weighted_sum(
    updates: Float[Tensor, "clients parameters"], weights: Float[Tensor, " clients"]
) -> Float[Tensor, " parameters"]:
    """The aggregate of updates, of their dtype."""
    return weights.to(updates.dtype) @ updates


def q_fair_step(
    differences: Float[Tensor, "clients parameters"], losses: Sequence[float], q: float, learning_rate: float
) -> Float[Tensor, " parameters"]:
    """The step of q-FedAvg (Li et al., "Fair Resource Allocation in Federated Learning", ICLR 2020, algorithm 2).

    With L = 1 / learning_rate and Δ_k = -L × difference: step = -Σ F_k^q Δ_k / Σ (q F_k^(q-1) |Δ_k|² + L F_k^q). With q = 0
    it is the plain mean of the differences.

    Args:
        differences: What each client's training changed.
        losses: F_k, each client's loss before it trained, above 0.
        q: How much harder clients with a greater loss pull, at or above 0.
        learning_rate: That of the clients, 1 / L.
    """
    lipschitz = 1 / learning_rate
    scaled = lipschitz * differences.double()
    values = torch.tensor(losses, dtype=torch.float64).clamp(min=1e-10)
    pull = values**q
    curvature = q * values ** (q - 1) * scaled.square().sum(dim=1) + lipschitz * pull
    return ((pull @ scaled) / curvature.sum()).to(differences.dtype)
