"""Which samples are whose, in experiments that cut one data set up.

Each function says which of the samples with these labels one party holds, as ascending int64 indices. A party calls it
by itself: the same labels and the same seed give every party the same cut, so that the shares do not overlap.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from comity.errors import InvalidValue
from comity.randomness import derive, generator

Share = Literal["learner", "provider"]


def limit_per_class(labels: Tensor, per_class: int) -> Tensor:
    """The first samples of each class.

    Args:
        labels: int64 `[samples]`, on the CPU.
        per_class: How many of each class, 1 or more; a class that has fewer keeps all.

    Raises:
        InvalidValue: `per_class` is out of its range, or there is no label.
    """
    if per_class < 1:
        raise InvalidValue(
            "Samples to keep of each class", expected="1 or more", received=per_class, action="correct `per_class`"
        )
    return _ascending([members[:per_class] for members in _classes(labels).values()])


def uniform(labels: Tensor, *, parties: int, index: int, seed: int) -> Tensor:
    """One of equal random shares, which together are all samples.

    Args:
        labels: int64 `[samples]`, on the CPU; only how many there are matters.
        parties: How many shares, 1 to the number of samples; where they do not divide, the first have one more.
        index: Which share, in [0, parties).
        seed: The same at every party.

    Raises:
        InvalidValue: `parties` or `index` is out of its range.
    """
    if not 1 <= parties <= len(labels):
        raise InvalidValue(
            "Parties to share among",
            expected=f"1 to {len(labels)}, the samples",
            received=parties,
            action="correct `partition.parties`",
        )
    if not 0 <= index < parties:
        raise InvalidValue(
            "Index of a share",
            expected=f"0 to {parties - 1}",
            received=index,
            action="correct `partition.index`: the first party's is 0",
        )
    order = torch.randperm(len(labels), generator=generator(derive(seed, "uniform")))
    return _ascending([order.tensor_split(parties)[index]])


def imbalance(labels: Tensor, *, gamma: float, share: Share, seed: int) -> Tensor:
    """A large balanced share and a small imbalanced one (Chen et al. 2023, section 4.2).

    The provider holds a random half of every class, rounded down. The learner's major class is what is left of the
    smallest class (the lowest label on a tie); of what is left of every other class it holds gamma times as many.

    Args:
        labels: int64 `[samples]`, on the CPU.
        gamma: The size of a minor class over that of the major one, in [0, 1]; a product that is not whole is rounded
            to the nearest, an exact half to the even one.
        share: Whose share.
        seed: The same at both parties.

    Raises:
        InvalidValue: gamma or share is out of its range, or there is no label.
    """
    if not 0 <= gamma <= 1:
        raise InvalidValue("The imbalance gamma", expected="0 to 1", received=gamma)
    if share not in ("learner", "provider"):
        raise InvalidValue("The share of an imbalance", expected="'learner' or 'provider'", received=repr(share))
    shuffled = {
        label: members[torch.randperm(len(members), generator=generator(derive(seed, "imbalance", label)))]
        for label, members in _classes(labels).items()
    }
    if share == "provider":
        return _ascending([members[: len(members) // 2] for members in shuffled.values()])
    rest = {label: members[len(members) // 2 :] for label, members in shuffled.items()}
    major = min(shuffled, key=lambda label: (len(shuffled[label]), label))
    # The rest of the smallest class is the smallest rest, so every other class has this many.
    minor_size = round(gamma * len(rest[major]))
    return _ascending([members if label == major else members[:minor_size] for label, members in rest.items()])


def _classes(labels: Tensor) -> dict[int, Tensor]:
    """Where each label stands, ascending, by label."""
    if not len(labels):
        raise InvalidValue(
            "There is no sample to share out", expected="1 or more", received=0, action="name a source that holds data"
        )
    return {int(label): torch.nonzero(labels == label).flatten() for label in torch.unique(labels)}


def _ascending(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts).sort().values
