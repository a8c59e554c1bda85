"""What a peer could learn of single samples from what was sent: tensors in, figures out.

Membership: Yeom et al. 2018 (a threshold on the loss); Carlini et al. 2022 (LiRA, offline: shadow models that saw other
samples). Reconstruction: rows of a first linear layer, and differences of such rows, that point where a sample does; and
their independent components (Hyvärinen and Oja 2000), since rows are mixtures of samples.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from sklearn.decomposition import FastICA  # type: ignore[import-untyped, unused-ignore]
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

ALIKE = 0.95
"""Correlation with a sample from which a direction may show it."""


@dataclass(frozen=True, slots=True)
class Separation:
    """How well a score tells members from others.

    Attributes:
        auc: Probability that a member scores higher than another, ties counted half: .5 for guessing.
        tpr: Share of the members that are found where 1 % of the others are taken for members: .01 for guessing.
    """

    auc: float
    tpr: float


def separation(members: Float[Tensor, " m"], others: Float[Tensor, " n"], fpr: float = 0.01) -> Separation:
    """How well scores tell members from others; the greater, the more a member."""
    ordered = others.sort().values
    below = torch.searchsorted(ordered, members, right=False)
    not_above = torch.searchsorted(ordered, members, right=True)
    auc = float((below + not_above).double().mean()) / (2 * len(others))
    allowed = math.floor(fpr * len(others))
    threshold = ordered[-1 - allowed]
    return Separation(auc, float((members > threshold).double().mean()))


def confidence(losses: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """The logit of the probability of the right class, of which LiRA takes a normal distribution."""
    right = losses.double().neg().exp().clamp(1e-12, 1 - 1e-7)
    return right.log() - (1 - right).log()


def likelihood(
    target: Float[Tensor, " samples"],
    shadows: Float[Tensor, "shadows samples"],
    without: Tensor,
) -> Float[Tensor, " samples"]:
    """LiRA's offline score: how far a model's confidence is above that of models which did not see the sample.

    Args:
        target: Confidence of the model that was sent.
        shadows: Confidence of the shadow models.
        without: Which shadow models did not see which sample; two at least for each.
    """
    counts = without.sum(dim=0)
    seen_less = torch.where(without, shadows, 0.0)
    mean = seen_less.sum(dim=0) / counts
    squares = torch.where(without, (shadows - mean).square(), 0.0).sum(dim=0)
    # Few shadow models make a variance of their own a poor one: all samples share theirs.
    spread = (squares.sum() / (counts - 1).sum()).sqrt().clamp(min=1e-6)
    return (target - mean) / spread


def directions(rows: Float[Tensor, "rows inputs"]) -> Iterator[Float[Tensor, "rows inputs"]]:
    """Rows that moved, and their differences with the one that is most like it: as they are, and what is beside it."""
    moved = rows[rows.norm(dim=1) > 0].double()
    if not len(moved):
        return
    yield moved
    if len(moved) > 1:
        unit = moved / moved.norm(dim=1, keepdim=True)
        alike = unit @ unit.T
        alike.fill_diagonal_(0.0)
        nearest = alike.abs().argmax(dim=1)
        yield moved - moved[nearest]
        along = (moved * unit[nearest]).sum(dim=1, keepdim=True)
        yield moved - along * unit[nearest]


def unmixed(rows: Float[Tensor, "rows inputs"], most: int = 64) -> Float[Tensor, "components inputs"]:
    """Independent components of rows that moved, by FastICA: samples, where the rows mix a few of them.

    Args:
        rows: Changes of a layer's rows.
        most: Rows that are looked at, those that moved the most; and components at most.
    """
    lengths = rows.double().norm(dim=1)
    order = lengths.argsort(descending=True)[: int((lengths > 0).sum())][:most]
    if len(order) < 2:
        return rows.new_empty((0, rows.shape[1]))
    moved = rows[order].double()
    values = torch.linalg.svdvals(moved - moved.mean(dim=1, keepdim=True))
    # As many as there are mixtures that rounding has not made up.
    components = max(int((values > 1e-5 * values[0]).sum()), 1)
    ica = FastICA(components, whiten="unit-variance", random_state=0, max_iter=200, tol=1e-2)
    with warnings.catch_warnings():
        # What it has found by then is looked at all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return torch.from_numpy(ica.fit_transform(moved.T.numpy()).T)


def shown(candidates: Float[Tensor, "rows inputs"], samples: Float[Tensor, "samples inputs"]) -> Int[Tensor, " found"]:
    """The samples that candidates show: alike, and nearer than half of what lies between the sample and the next one.

    A candidate has neither scale nor offset of its own.
    """
    those, own = _standard(candidates), _standard(samples)
    if not len(those) or len(own) < 2:
        return torch.empty(0, dtype=torch.int64)
    inputs = own.shape[1]
    cosines = (those @ own.T) / inputs
    best = cosines.abs().max(dim=1)
    among = cosines.new_full((len(own),), -1.0)
    for start in range(0, len(own), 1024):
        block = own[start : start + 1024] @ own.T / inputs
        at = torch.arange(len(block))
        block[at, at + start] = -1.0
        among[start : start + 1024] = block.max(dim=1).values
    # Squared distances of standardised vectors are 2 - 2 cos, in units of their length.
    near = (2 - 2 * best.values).clamp(min=0).sqrt() < 0.5 * (2 - 2 * among[best.indices]).clamp(min=0).sqrt()
    those_shown: Tensor = best.indices[(best.values > ALIKE) & near].unique()
    return those_shown


def _standard(rows: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows inputs"]:
    rows = rows.double()
    rows = rows - rows.mean(dim=1, keepdim=True)
    spread = rows.norm(dim=1, keepdim=True) / math.sqrt(rows.shape[1])
    found: Tensor = (rows / spread.clamp(min=1e-300))[(spread > 0).flatten()]
    return found


def correlation(one: Tensor, other: Tensor) -> float | None:
    """Pearson's; None where one of them does not vary."""
    a, b = one.double() - one.double().mean(), other.double() - other.double().mean()
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths > 0 else None
