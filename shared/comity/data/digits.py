"""scikit-learn's handwritten digits: 1,797 images of 8x8 that are installed with it, so that nothing is fetched."""

from __future__ import annotations

from functools import cache

import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped, unused-ignore]

from comity.data.dataset import Dataset, Splits
from comity.data.sources import Request
from comity.errors import InvalidValue

_SEEDS = 2**32


def load(request: Request) -> Splits:
    """float32 `[samples, 1, 8, 8]` in 0 to 16; a quarter of each class, drawn by the seed, is the test split.

    Both splits keep the order that scikit-learn's `train_test_split` shuffles them into, so that the first samples of
    a class are a draw by the seed too.

    Raises:
        InvalidValue: The seed is not one that scikit-learn takes.
    """
    if not 0 <= request.seed < _SEEDS:
        raise InvalidValue("The seed of the digits' test split", expected="0 to 2**32 - 1", received=request.seed)
    every = _every()
    train, test = train_test_split(
        range(len(every)), test_size=0.25, stratify=every.labels.numpy(), random_state=request.seed
    )
    return Splits(every.select(torch.tensor(train)), every.select(torch.tensor(test)))


@cache
def _every() -> Dataset:
    """All of them; parsing the text that they are kept as takes longer than many a training."""
    digits = load_digits()
    return Dataset(
        inputs=torch.from_numpy(digits.images).to(torch.float32).unsqueeze(1),
        labels=torch.from_numpy(digits.target).to(torch.int64),
        scale=1 / 16,
        classes=10,
    )
