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
"""Rows that are judged at once."""
_SAME = (1 - 2 * _REGULARIZATION, 0.9999)
"""Absolute cosines from which two rows count as one: what rounding cannot tell apart, and then what would crowd others out.

Rows that differ by one of many samples are among the latter, so groups are judged both ways.
"""
_SAMPLES_A_ROW = 8
SLACK = 0.9
"""Share of a threshold from which a bound that was reckoned in float32 is followed up in float64."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The thresholds. The first two follow from the correlation with one sample that is borne, not from data.

    Attributes:
        row: Greatest λ in a row by itself; .5 is a correlation of about .71.
        combined: Greatest leverage in a row with others; .8 is a correlation of about .9.
        neighbours: Most similar rows with which a row is judged, beside the nearest; 0 for the nearest alone.
        wide: Most similar rows of groups that hold nothing back, and count for refusing; fewer where there are less than
            eight samples for each, of which so many rows would show some in any case.
        layer: Share of a layer's rows above which, where so many are held, all are.
        most_isolated: Most samples with a leverage above `combined` in one layer before all is refused.
        fewest: Distinct samples behind a row that leaves.
    """

    row: float = 0.5
    combined: float = 0.8
    neighbours: int = 8
    wide: int = 16
    layer: float = 0.75
    most_isolated: int = 16
    fewest: int = 64


def most_of_one(rows: Contributions) -> Float[Tensor, " rows"]:
    """The greatest λ of each row by itself; rows are scaled. A row that is not finite counts as one sample's."""
    return rows.abs().amax(1).square().nan_to_num_(nan=1.0) if rows.shape[1] else rows.new_zeros(len(rows))


def unit(contributions: Contributions) -> Contributions:
    """Rows of length 1 as they are, for what needs no more than their precision; a row that nothing moved stays 0."""
    if contributions.shape[1] == 0:
        return contributions
    least = torch.finfo(contributions.dtype).tiny
    # Twice: squares of tiny contributions vanish.
    rows = contributions / contributions.abs().amax(1, keepdim=True).clamp_min_(least)
    return rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(least))


def scaled(contributions: Contributions) -> Contributions:
    """Rows of length 1, in float64; a row that nothing moved stays 0."""
    return unit(contributions.double())


def paired(one: Contributions, other: Contributions) -> Contributions:
    """The leverage of each sample in pairs of rows, row by row; both are scaled."""
    cosine = (one * other).sum(1, keepdim=True)
    # (u, v) (G + εI)⁻¹ (u, v)ᵀ = ((1+ε)(u² + v²) - 2cuv) / ((1+ε)² - c²), its numerator without what cancels.
    numerator = (one - cosine * other).square() + (1 + _REGULARIZATION - cosine.square()) * other.square()
    numerator += _REGULARIZATION * one.square()
    return numerator / ((1 + _REGULARIZATION) ** 2 - cosine.square())


def could_pair(
    one: Float[Tensor, " rows"], other: Float[Tensor, " rows"], cosine: Float[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """What no leverage in pairs exceeds, from the greatest λ of both rows by themselves and their cosine."""
    cross = 2 * cosine.abs() * (one * other).sqrt()
    return ((1 + _REGULARIZATION) * (one + other) + cross) / ((1 + _REGULARIZATION) ** 2 - cosine.square())


def grouped(rows: Contributions, groups: Int[Tensor, "groups members"]) -> Float[Tensor, "groups samples"]:
    """The leverage of each sample in groups of rows; rows are scaled."""
    members = rows[groups]
    products = members @ members.transpose(1, 2)
    products.diagonal(dim1=1, dim2=2).add_(_REGULARIZATION)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(products), members, upper=False)
    leverage: Tensor = whitened.square_().sum(1)
    return leverage


def chunks(of: Tensor) -> tuple[Tensor, ...]:
    """Few at a time, to bound the memory; nothing of nothing."""
    return of.split(_CHUNK) if of.shape[0] else ()


def combined(rows: Contributions, rules: Rules) -> tuple[Bool[Tensor, " rows"], Bool[Tensor, " samples"]]:
    """Pair and group rules: rows that stay, and samples that such combinations show; rows are of length 1."""
    count, samples = rows.shape
    held, shown = torch.zeros(count, dtype=torch.bool), torch.zeros(samples, dtype=torch.bool)
    if count < 2 or samples == 0:
        return held, shown
    single, products = most_of_one(rows), rows @ rows.T
    # A row that nothing moved has nothing to combine.
    moved = single > 0
    near = _nearest(products, 1)[1][:, 0]
    cosines = products[torch.arange(count), near]
    suspect = moved & (could_pair(single, single[near], cosines) > SLACK * rules.combined)
    for chunk in chunks(torch.nonzero(suspect).flatten()):
        above = paired(scaled(rows[chunk]), scaled(rows[near[chunk]])) > rules.combined
        held[chunk] = above.any(1)
        shown |= above.any(0)
    left = torch.nonzero(~held & moved).flatten()
    if rules.neighbours > 1 and len(left) > 1:
        judged = 0
        for same in _SAME:
            alone, place = _told_apart(products[left][:, left], same)
            if len(alone) == judged:
                break
            judged = len(alone)
            left_alone = left[alone]
            rest, near = scaled(rows[left_alone]), products[left_alone][:, left_alone].double()
            stay, seen = _in_groups(rest, single[left_alone], near, rules, rules.neighbours)
            held[left] |= stay[place]
            shown |= seen
            if (wide := min(rules.wide, samples // _SAMPLES_A_ROW)) > rules.neighbours:
                shown |= _in_groups(rest, single[left_alone], near, rules, wide)[1]
    return held, shown


def _told_apart(
    products: Float[Tensor, "rows rows"], same: float
) -> tuple[Int[Tensor, " alone"], Int[Tensor, " rows"]]:
    """One row for all that say the same, and for each row, which of those stands for it: copies would fill its group."""
    first = (products.abs() > same).to(torch.uint8).argmax(1)
    alone, place = first.unique(return_inverse=True)
    return alone, place


def _in_groups(
    rows: Contributions,
    single: Float[Tensor, " rows"],
    products: Float[Tensor, "rows rows"],
    rules: Rules,
    neighbours: int,
) -> tuple[Bool[Tensor, " rows"], Bool[Tensor, " samples"]]:
    """The rows of which a group shows a sample, and the samples."""
    held = torch.zeros(len(rows), dtype=torch.bool)
    shown = torch.zeros(rows.shape[1], dtype=torch.bool)
    if len(rows) > 1:
        groups = torch.cat(_nearest(products, neighbours), dim=1)
        for chunk in chunks(groups[_could_group(single, products, groups) > SLACK * rules.combined]):
            above = grouped(rows, chunk) > rules.combined
            held[chunk[:, 0]] = above.any(1)
            shown |= above.any(0)
    return held, shown


def _nearest(
    products: Float[Tensor, "rows rows"], count: int
) -> tuple[Int[Tensor, "rows 1"], Int[Tensor, "rows count"]]:
    """Each row, and the rows of greatest absolute cosine with it, itself left out, in that order."""
    cosines = products.abs()
    cosines.fill_diagonal_(-1)
    place = torch.arange(len(products)).unsqueeze(1)
    return place, cosines.topk(min(count, len(products) - 1), dim=1).indices


def _could_group(
    single: Float[Tensor, " rows"], products: Float[Tensor, "rows rows"], groups: Int[Tensor, "groups members"]
) -> Float[Tensor, " groups"]:
    """What no leverage in groups exceeds: the longest a column can be, over the least eigenvalue of the products."""
    least = torch.linalg.eigvalsh(products[groups.unsqueeze(2), groups.unsqueeze(1)])[:, 0]
    bound: Tensor = single.double()[groups].sum(1) / (least.clamp_min(0) + _REGULARIZATION)
    return bound


def whole(held: Bool[Tensor, " rows"], rules: Rules) -> Bool[Tensor, " rows"]:
    """The layer rule: all rows where too many are held."""
    return torch.ones_like(held) if held.sum() > rules.layer * len(held) else held
