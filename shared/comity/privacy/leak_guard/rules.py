"""When a row of a layer stays: from what each sample contributed to each row's change.

Contributions are Δ[i, s]: what sample s added to row i, signed. A combination c of rows then shows sample s with a
correlation of about √λ, where λ = (c·Δ_s)² / Σ_s' (c·Δ_s')². The greatest λ over all combinations of some rows is the
leverage of s in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Contributions = Float[Tensor, "rows samples"]

_REGULARIZATION = 1e-6
"""Added to the rows' products: what differs by less drowns in the rounding of float32 weights."""
_CHUNK = 32
"""Rows whose groups are judged at once; bounds the memory."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The thresholds. The first two follow from the correlation with one sample that is borne, not from data.

    Attributes:
        row: Greatest λ in a row by itself; .5 is a correlation of about .71.
        combined: Greatest leverage in a row with others; .8 is a correlation of about .9.
        neighbours: Most similar rows with which a row is judged, beside the nearest; 0 for the nearest alone.
        layer: Share of a layer's rows above which, where so many are held, all are.
        most_isolated: Most samples with a leverage above `combined` in one layer before all is refused.
        fewest: Distinct samples behind a row that leaves.
    """

    row: float = 0.5
    combined: float = 0.8
    neighbours: int = 8
    layer: float = 0.5
    most_isolated: int = 16
    fewest: int = 64


def most_of_one(contributions: Contributions) -> Float[Tensor, " rows"]:
    """The greatest λ of each row by itself; 0 for a row that nothing moved."""
    if contributions.shape[1] == 0:
        return torch.zeros(len(contributions), dtype=torch.float64)
    return scaled(contributions).square().amax(1)


def scaled(contributions: Contributions) -> Contributions:
    """Rows of length 1, in float64; a row that nothing moved stays 0."""
    rows = contributions.double()
    # Twice: squares of tiny contributions vanish.
    rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return unit


def paired(one: Contributions, other: Contributions) -> Contributions:
    """The leverage of each sample in pairs of rows, row by row; both are scaled."""
    cosine = (one * other).sum(1, keepdim=True)
    # (u, v) (G + εI)⁻¹ (u, v)ᵀ = ((1+ε)(u² + v²) - 2cuv) / ((1+ε)² - c²), its numerator without what cancels.
    numerator = (one - cosine * other).square() + (1 + _REGULARIZATION - cosine.square()) * other.square()
    numerator += _REGULARIZATION * one.square()
    return numerator / ((1 + _REGULARIZATION) ** 2 - cosine.square())


def nearest(rows: Contributions, count: int) -> Int[Tensor, "rows count"]:
    """The rows of greatest absolute cosine with each row, itself left out, in that order; rows are scaled."""
    cosines = (rows @ rows.T).abs()
    cosines.fill_diagonal_(-1)
    return cosines.topk(min(count, len(rows) - 1), dim=1).indices


def grouped(rows: Contributions, groups: Int[Tensor, "groups members"]) -> Float[Tensor, "groups samples"]:
    """The leverage of each sample in groups of rows; rows are scaled."""
    members = rows[groups]
    products = members @ members.transpose(1, 2)
    products.diagonal(dim1=1, dim2=2).add_(_REGULARIZATION)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(products), members, upper=False)
    leverage: Tensor = whitened.square_().sum(1)
    return leverage


def combined(contributions: Contributions, rules: Rules) -> tuple[Bool[Tensor, " rows"], Bool[Tensor, " samples"]]:
    """Pair and group rules: rows that stay, and samples that such combinations show."""
    count, samples = contributions.shape
    held, shown = torch.zeros(count, dtype=torch.bool), torch.zeros(samples, dtype=torch.bool)
    if count < 2 or samples == 0:
        return held, shown
    rows = scaled(contributions)
    near = nearest(rows, max(1, rules.neighbours))
    leverage = paired(rows, rows[near[:, 0]])
    # A row that nothing moved has nothing to combine.
    above = (leverage > rules.combined) & (rows.abs().amax(1, keepdim=True) > 0)
    held |= above.any(1)
    shown |= above.any(0)
    left = torch.nonzero(~held).flatten()
    if rules.neighbours > 1 and len(left) > 1:
        rest = rows[left]
        near = nearest(rest, rules.neighbours)
        groups = torch.cat([torch.arange(len(left)).unsqueeze(1), near], dim=1)
        for chunk in torch.arange(len(left)).split(_CHUNK):
            above = grouped(rest, groups[chunk]) > rules.combined
            above &= rest[chunk].abs().amax(1, keepdim=True) > 0
            held[left[chunk]] |= above.any(1)
            shown |= above.any(0)
    return held, shown


def successive(now: Contributions, before: Contributions, rules: Rules) -> Bool[Tensor, " rows"]:
    """Rows that stay since their difference with what was sent before shows a sample; samples in the same order."""
    if now.shape[1] == 0:
        return torch.zeros(len(now), dtype=torch.bool)
    one, other = scaled(now), scaled(before)
    moved = (one.abs().amax(1) > 0) & (other.abs().amax(1) > 0)
    return moved & (paired(one, other).amax(1) > rules.combined)


def whole(held: Bool[Tensor, " rows"], rules: Rules) -> Bool[Tensor, " rows"]:
    """The layer rule: all rows where too many are held."""
    return torch.ones_like(held) if held.sum() > rules.layer * len(held) else held
