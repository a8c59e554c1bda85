"""Which samples are whose, in experiments that cut one data set up.

Each function says which of the samples with these labels one party holds, as ascending int64 indices. A party calls it
by itself: the same labels and the same seed give every party the same cut, so that the shares do not overlap.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from comity.errors import InvalidValue
from comity.randomness import derive, generator

Share = Literal["learner", "provider"]

POWER_LAW_EXPONENT = 1.65911332899
"""That of the experiments of Xu et al. 2021."""


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
    _require_share(labels, parties, index)
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


def power_law(labels: Tensor, *, parties: int, index: int, seed: int, exponent: float = POWER_LAW_EXPONENT) -> Tensor:
    """One of random shares whose sizes grow from the first to the last; together they are all samples.

    Sizes are in proportion to equally spaced values between the first and the last percentile of a power law with
    density proportional to x^(exponent - 1) on [0, 1], as in the experiments of Xu et al. 2021 (POW).

    Args:
        labels: int64 `[samples]`, on the CPU; only how many there are matters.
        parties: How many shares, 1 to the number of samples.
        index: Which share, in [0, parties).
        seed: The same at every party.
        exponent: Above 0; the smaller, the more the sizes differ.

    Raises:
        InvalidValue: An argument is out of its range.
    """
    _require_share(labels, parties, index)
    if not 0 < exponent < math.inf:
        raise InvalidValue("The exponent of a power law", expected="a finite number above 0", received=exponent)
    first, last = 0.01 ** (1 / exponent), 0.99 ** (1 / exponent)
    values = torch.linspace(first, last, parties, dtype=torch.float64) if parties > 1 else torch.ones(1).double()
    # Ends and not sizes are rounded, so that nothing is left over; everybody has a sample before there is a law.
    ends = values.cumsum(0) / values.sum() * (len(labels) - parties)
    ends = ends.round().to(torch.int64) + torch.arange(1, parties + 1)
    begin = int(ends[index - 1]) if index else 0
    order = torch.randperm(len(labels), generator=generator(derive(seed, "power-law")))
    return _ascending([order[begin : int(ends[index])]])


def class_range(labels: Tensor, *, parties: int, index: int, seed: int, samples: int | None = None) -> Tensor:
    """One of random shares of one size, with the more classes the later the share: from one to all (CLA, Xu et al. 2021).

    Of C classes party i of N has the first 1 + i (C - 1) / (N - 1), rounded down, of each as many samples, but for a
    remainder that the first classes take. Shares do not overlap; together they are less than all samples.

    Args:
        labels: int64 `[samples]`, on the CPU.
        parties: How many shares; a single one has all classes.
        index: Which share, in [0, parties).
        seed: The same at every party.
        samples: How many each has; None is as many as there can be.

    Raises:
        InvalidValue: An argument is out of its range, or there are too few samples.
    """
    _require_share(labels, parties, index)
    members = list(_classes(labels).values())
    sizes = torch.tensor([len(each) for each in members])
    held = [
        1 + party * (len(members) - 1) // (parties - 1) if parties > 1 else len(members) for party in range(parties)
    ]

    def taken(samples: int) -> Tensor:
        """How many each party takes of each class, `[parties, classes]`."""
        place = torch.arange(len(members))
        counts = torch.tensor(held)[:, None]
        return torch.where(place < counts, samples // counts + (place < samples % counts), 0)

    # No more than in parts of samples, which rounding up to whole ones can only lower.
    demand = torch.tensor([[(place < count) / count for place in range(len(members))] for count in held])
    most = int((sizes / demand.sum(dim=0)).min())
    while most and bool((taken(most).sum(dim=0) > sizes).any()):
        most -= 1
    if not 1 <= (samples if samples is not None else most) <= most:
        raise InvalidValue("Samples of each share with some of the classes", expected=f"1 to {most}", received=samples)
    ends = taken(samples or most).cumsum(dim=0)
    begins = ends - taken(samples or most)
    shares = []
    for label, each in enumerate(members):
        order = torch.randperm(len(each), generator=generator(derive(seed, "classes", label)))
        shares.append(each[order[int(begins[index, label]) : int(ends[index, label])]])
    return _ascending(shares)


def _require_share(labels: Tensor, parties: int, index: int) -> None:
    if not 1 <= parties <= len(labels):
        raise InvalidValue("Parties to share among", expected=f"1 to {len(labels)}, the samples", received=parties)
    if not 0 <= index < parties:
        raise InvalidValue("Index of a share", expected=f"0 to {parties - 1}", received=index)


def _classes(labels: Tensor) -> dict[int, Tensor]:
    """Where each label stands, ascending, by label."""
    if not len(labels):
        raise InvalidValue(
            "There is no sample to share out", expected="1 or more", received=0, action="name a source that holds data"
        )
    return {int(label): torch.nonzero(labels == label).flatten() for label in torch.unique(labels)}


def _ascending(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts).sort().values
