"""The synthetic classification example of Chen et al. 2023 (section 4.1, figure 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from comity.data.dataset import Dataset, Splits
from comity.data.sources import Request
from comity.errors import InvalidValue
from comity.randomness import derive, generator

MEANS = ((-1.0, 1.0), (1.0, -1.0))
"""Of class A (0) and class B (1)."""
DEVIATION = 1.5
TRAIN, TEST = 50, 10_000
"""Points of each class; the paper states none for the test."""


def load(request: Request) -> Splits:
    """float32 `[points, 2]`: 50 of each class from N(±[-1, 1], 1.5² I), and 10,000 of each to test on.

    The best accuracy that any classifier has is Φ(√2 / 1.5), 82.7 %. The paper's parties hold 90 % of one class and 10 %
    of the other: the partition `complementary`.

    Raises:
        InvalidValue: There is no synthetic data set of this name.
    """
    if request.location != "fig2":
        raise InvalidValue("This synthetic data set is not made", expected="fig2", received=repr(request.location))
    return Splits(_points(TRAIN, derive(request.seed, "train")), _points(TEST, derive(request.seed, "test")))


def _points(count: int, seed: int) -> Dataset:
    random = generator(seed)
    points: list[Tensor] = [torch.tensor(mean) + DEVIATION * torch.randn(count, 2, generator=random) for mean in MEANS]
    return Dataset(torch.cat(points), torch.arange(2).repeat_interleave(count), scale=1.0, classes=2)
