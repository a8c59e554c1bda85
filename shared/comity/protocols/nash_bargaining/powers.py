"""What a round of bargaining comes to, and how the bargaining powers follow from what helps the main task."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from comity.protocols.nash_bargaining.algorithm import bargain, gram_matrix, power_gradient

_MOST = 5.0
"""Bound of a hypergradient's entries, so that one round cannot turn the powers over."""


@dataclass(frozen=True, slots=True)
class BargainedRound:
    """What a round comes to; players are in their order, the main task first.

    Attributes:
        alpha: Weights of the gradients; 0 for players without power in the round.
        direction: Gα, of length 1; zeros where nobody had a gradient.
        hypergradient: h, how the main task's loss changes with the power of each, for a step of length 1; 0 for players
            without power in the round.
        help: By how much a step of length 1 lowers the main task's loss because of each player, to first order.
        degenerate: Whether the game had no solution of its own; see `Bargain`.
    """

    alpha: Float[Tensor, " players"]
    direction: Float[Tensor, " parameters"]
    hypergradient: Float[Tensor, " players"]
    help: Float[Tensor, " players"]
    degenerate: bool


def bargained_round(
    gradients: Float[Tensor, "players parameters"],
    power: Float[Tensor, " players"],
    present: Bool[Tensor, " players"],
    main_gradient: Float[Tensor, " parameters"],
    ridge: float,
) -> BargainedRound:
    """Bargains for an update, and finds out who helps.

    Players that are away, or send nothing, bargain with power 0; the others' powers are brought to a sum of 1, so that the
    update has length 1 whoever is there.

    Args:
        gradients: Of the players, the main task's first.
        power: p.
        present: Who takes part.
        main_gradient: The main task's on another batch, by which the others are judged.
        ridge: See `bargain`.

    Raises:
        NonFiniteValue: A gradient is NaN or infinite.
    """
    gram = gram_matrix(torch.cat([gradients, main_gradient.unsqueeze(0)]))
    takes_part = present & (gram.diagonal()[:-1] > 0)
    here = torch.where(takes_part, power, 0.0)
    if not bool(takes_part.any()):
        none = torch.zeros(len(power), dtype=torch.float64)
        return BargainedRound(none, torch.zeros_like(main_gradient), none, none, True)
    here = here / here.sum()
    # A point that is Pareto stationary still has weights; see `bargain`.
    found = bargain(gram[:-1, :-1], here, ridge)
    direction = (found.alpha @ gradients.double()).to(gradients.dtype)
    length = gram[-1, -1].sqrt()
    along = gram[-1, :-1]
    vector = -along / length if bool(length > 0) else torch.zeros_like(along)
    hypergradient = power_gradient(gram[:-1, :-1], here, found.alpha, vector, ridge)
    return BargainedRound(
        found.alpha,
        direction,
        torch.where(takes_part, hypergradient, 0.0),
        found.alpha * along,
        bool(found.degenerate),
    )


def initial_powers(providers: int, main_power: float) -> Float[Tensor, " players"]:
    """The learner's power, and equal ones of so many providers."""
    shares = [(1 - main_power) / providers] * providers
    return torch.tensor([main_power, *shares], dtype=torch.float64)


def updated_powers(
    power: Float[Tensor, " players"],
    hypergradient: Float[Tensor, " players"],
    rate: float,
    floor: float,
    most_main: float | None = None,
) -> Float[Tensor, " players"]:
    """The powers after an exponentiated-gradient step, with the sum that they had.

    p_i ← p_i·exp(−η·(h_i − Σp·h)), at least the floor.

    Args:
        power: p; the main task's first.
        hypergradient: h, in the mean of some rounds; NaN for players who were in none, whose powers move with the others'.
        rate: η.
        floor: The least power of a player.
        most_main: The greatest power of the main task, which is then learned too; None where it stays as it is.
    """
    if most_main is None:
        return torch.cat([power[:1], _moved(power[1:], hypergradient[1:], rate, floor)])
    moved = _moved(power, hypergradient, rate, floor)
    if float(moved[0]) <= most_main:
        return moved
    return torch.cat([moved.new_tensor([most_main]), _with_floor(moved[1:], floor, float(power.sum()) - most_main)])


def _moved(
    power: Float[Tensor, " n"], hypergradient: Float[Tensor, " n"], rate: float, floor: float
) -> Float[Tensor, " n"]:
    known = ~hypergradient.isnan()
    if not bool(known.any()):
        return power
    mean = (power[known] * hypergradient[known]).sum() / power[known].sum()
    relative = torch.where(known, (hypergradient - mean).clamp(-_MOST, _MOST), 0.0)
    total = float(power.sum())
    # p·exp(−η·h), brought to its sum: by the softmax, which is finite at any rate.
    return _with_floor(total * torch.softmax(power.log() - rate * relative, 0), floor, total)


def _with_floor(values: Float[Tensor, " n"], floor: float, total: float) -> Float[Tensor, " n"]:
    """Brought to a sum, with nothing below the floor: what is at the floor stays there, the rest is scaled."""
    low = torch.zeros_like(values, dtype=torch.bool)
    for _ in range(len(values)):
        left = total - floor * int(low.sum())
        scaled = torch.where(low, floor, values * (left / values[~low].sum()))
        below = (scaled < floor) & ~low
        if not bool(below.any()):
            return scaled
        low |= below
        if bool(low.all()):
            break
    return torch.full_like(values, total / len(values))
