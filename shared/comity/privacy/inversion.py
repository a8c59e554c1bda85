"""What features show of the inputs that they were made of: a linear reconstruction, tested on inputs that it was not fitted to."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from comity.contract import Json
from comity.errors import InvalidValue

_MOST = 4096
"""Samples that it is fitted to, and tested on."""
_RIDGES = (1e-6, 1e-4, 1e-2, 1.0)
"""Of the mean squared feature; which is best, a tenth of the samples decides."""
_HELD = 10
_LEAST = 20


def reconstruction(
    features: Float[Tensor, "known ..."],
    inputs: Float[Tensor, "known ..."],
    unseen_features: Float[Tensor, "unseen ..."],
    unseen_inputs: Float[Tensor, "unseen ..."],
) -> dict[str, Json]:
    """How well inputs are reconstructed from features by ridge regression.

    Whoever has inputs of the same kind, and the model that makes the features, can do this; a network would do better.

    Args:
        features: Of inputs that are known.
        inputs: Those inputs.
        unseen_features: Of others.
        unseen_inputs: The others.

    Returns:
        `psnr_db`, with the range of the known inputs as the peak; `r2`, the share of the variance of the unseen inputs that
        is explained: 1 shows them whole, 0 shows no more than their mean; and how many there were of each.

    Raises:
        InvalidValue: There are too few.
    """
    if len(features) < _LEAST or not len(unseen_features):
        raise InvalidValue(
            "Samples to reconstruct others with",
            expected=f"{_LEAST} or more, and others to test it on",
            received=f"{len(features)} and {len(unseen_features)}",
        )
    known, wanted = (each[:_MOST].flatten(1).double() for each in (features, inputs))
    held = max(len(known) // _HELD, 1)
    errors = [
        float((_fit(known[held:], wanted[held:], ridge)(known[:held]) - wanted[:held]).square().mean())
        for ridge in _RIDGES
    ]
    ridge = _RIDGES[errors.index(min(errors))]
    unseen, truth = (each[:_MOST].flatten(1).double() for each in (unseen_features, unseen_inputs))
    error = float((_fit(known, wanted, ridge)(unseen) - truth).square().mean())
    spread = float((truth - truth.mean(dim=0)).square().mean())
    peak = float(wanted.max() - wanted.min())
    return {
        "psnr_db": 10 * math.log10(peak**2 / error) if error > 0 and peak > 0 else None,
        "r2": 1 - error / spread if spread > 0 else None,
        "known": len(known),
        "unseen": len(unseen),
    }


def _fit(features: Tensor, inputs: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
    """The affine map from features to inputs with the least squared error, and so much ridge."""
    middle, mean = features.mean(dim=0), inputs.mean(dim=0)
    centered = features - middle
    weight = ridge * max(float(centered.square().mean()), 1e-12) * len(centered)
    by_feature = centered.shape[1] <= len(centered)
    # Of both forms of the solution, the smaller system.
    gram = centered.T @ centered if by_feature else centered @ centered.T
    gram.diagonal().add_(weight)
    if by_feature:
        mapped = torch.linalg.solve(gram, centered.T @ (inputs - mean))
    else:
        mapped = centered.T @ torch.linalg.solve(gram, inputs - mean)
    return lambda others: (others - middle) @ mapped + mean
