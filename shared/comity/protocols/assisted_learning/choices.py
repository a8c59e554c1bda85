"""What the algorithm leaves open, by name."""

from __future__ import annotations

from typing import Literal

Objective = Literal["sum", "mean"]
"""How the parties' losses make the global loss: `sum` adds loss sums, f(L,P) = f(L) + f(P), as the paper does; `mean` adds
mean losses, so that each party weighs the same whatever its number of samples."""

Order = Literal["listed", "rotating"]
"""Which provider trains first in a round: always the first of the contract's, or each in its turn."""

TrajectoryEncoding = Literal["dense", "delta"]
"""How a trajectory's checkpoints cross: as they are, or as what changed since the one before."""


def pick_field(provider: str) -> str:
    """The field of a provider's pick in events of rounds in which several help."""
    return f"pick_{provider}"
