"""Which samples are whose, in experiments that cut one data set up.

Each function says which of the samples with these labels one party holds, as ascending int64 indices. A party calls it
by itself: the same labels and the same seed give every party the same cut, so that the shares do not overlap.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from comity.data.config import POWER_LAW_EXPONENT, Share
from comity.errors import InvalidValue
from comity.randomness import derive, generator


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


def imbalance(labels: Tensor, *, gamma: float, share: Share, seed: int, without_major: bool = False) -> Tensor:
    """A large balanced share and a small imbalanced one (Chen et al. 2023, section 4.2).

    The provider holds a random half of every class, rounded down. The learner's major class is what is left of the
    smallest class (the lowest label on a tie); of what is left of every other class it holds gamma times as many.

    Args:
        labels: int64 `[samples]`, on the CPU.
        gamma: The size of a minor class over that of the major one, in [0, 1]; a product that is not whole is rounded
            to the nearest, an exact half to the even one.
        share: Whose share.
        seed: The same at both parties.
        without_major: Whether the provider lacks the learner's major class: different categories (section A.9.1).

    Raises:
        InvalidValue: gamma or share is out of its range, or there is no label.
    """
    if not 0 <= gamma <= 1:
        raise InvalidValue("The imbalance gamma", expected="0 to 1", received=gamma)
    _require_side(share)
    shuffled = _shuffled(labels, seed, "imbalance")
    major = min(shuffled, key=lambda label: (len(shuffled[label]), label))
    if share == "provider":
        lacking = {major} if without_major else set()
        return _ascending(
            [members[: 0 if label in lacking else len(members) // 2] for label, members in shuffled.items()]
        )
    rest = {label: members[len(members) // 2 :] for label, members in shuffled.items()}
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


def dominated(labels: Tensor, *, provider: int, learner: int, major: float, share: Share, seed: int) -> Tensor:
    """A balanced share, and one of which a class makes up most (Chen et al. 2023, sections A.1.1 and A.2.2).

    The provider holds as many samples of every class as of any other. The learner holds `major` of its samples from the
    class of the lowest label, and of the rest as many of each other class. Counts that do not divide are rounded down.

    Args:
        labels: int64 `[samples]`, on the CPU.
        provider: Samples of the provider, at least 1 a class.
        learner: Samples of the learner, at least 1.
        major: Share of the learner's samples that its one class makes up, in [0, 1]: 1 in A.1.1, a half in A.2.2.
        share: Whose share.
        seed: The same at both parties.

    Raises:
        InvalidValue: A number is out of its range, or a class has too few samples for both.
    """
    if not 0 <= major <= 1:
        raise InvalidValue("The share of the learner's major class", expected="0 to 1", received=major)
    _require_side(share)
    shuffled = _shuffled(labels, seed, "dominated")
    balanced = provider // len(shuffled)
    largest = int(major * learner)
    others = (learner - largest) // max(len(shuffled) - 1, 1)
    if balanced < 1 or learner < 1:
        expected = f"at least {len(shuffled)} and 1"
        raise InvalidValue("Samples of provider and learner", expected=expected, received=f"{provider} and {learner}")
    lowest = min(shuffled)
    parts = []
    for label, members in shuffled.items():
        wanted = largest if label == lowest else others
        if balanced + wanted > len(members):
            raise InvalidValue(
                f"Class {label} has too few samples",
                expected=f"{balanced} for the provider and {wanted} for the learner",
                received=len(members),
                action="lower provider or learner",
            )
        parts.append(members[:balanced] if share == "provider" else members[balanced : balanced + wanted])
    return _ascending(parts)


def complementary(labels: Tensor, *, fraction: float, share: Share, seed: int) -> Tensor:
    """Two shares, each with most of one half of the classes (Chen et al. 2023, figure 2).

    The learner holds a fraction of every class in the lower half of the labels, and what is left of 1 of every other; the
    provider holds the rest.

    Args:
        labels: int64 `[samples]`, on the CPU.
        fraction: In [0, 1], for example 0.9; what is not whole is rounded to the nearest, an exact half to the even one.
        share: Whose share.
        seed: The same at both parties.

    Raises:
        InvalidValue: fraction or share is out of its range, or there is no label.
    """
    if not 0 <= fraction <= 1:
        raise InvalidValue("The fraction of a complementary share", expected="0 to 1", received=fraction)
    _require_side(share)
    shuffled = _shuffled(labels, seed, "complementary")
    parts = []
    for place, members in enumerate(shuffled.values()):
        lower = place < (len(shuffled) + 1) // 2
        cut = round((fraction if lower else 1 - fraction) * len(members))
        parts.append(members[:cut] if share == "learner" else members[cut:])
    return _ascending(parts)


def _require_side(share: Share) -> None:
    if share not in ("learner", "provider"):
        raise InvalidValue("The share of a partition", expected="'learner' or 'provider'", received=repr(share))


def _shuffled(labels: Tensor, seed: int, purpose: str) -> dict[int, Tensor]:
    """Where each label stands, in random order, by label, ascending."""
    return {
        label: members[torch.randperm(len(members), generator=generator(derive(seed, purpose, label)))]
        for label, members in _classes(labels).items()
    }


def _classes(labels: Tensor) -> dict[int, Tensor]:
    """Where each label stands, ascending, by label."""
    if not len(labels):
        raise InvalidValue(
            "There is no sample to share out", expected="1 or more", received=0, action="name a source that holds data"
        )
    return {int(label): torch.nonzero(labels == label).flatten() for label in torch.unique(labels)}


def _ascending(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts).sort().values
