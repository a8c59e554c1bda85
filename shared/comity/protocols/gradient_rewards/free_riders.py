"""Signs that a client has nothing of its own: it sends its last reward, another's update, or noise.

Updates are all of one length, so that an update's length tells nothing; what is looked at is where it points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from comity.protocols.gradient_rewards.inner_products import gram
from comity.protocols.gradient_rewards.rewards import SparseUpdate

Finding = Literal["its last reward", "a copy", "nothing new"]

ECHO = 0.98
"""Cosine with its last reward from which an update is that reward. Honest clients on digits reach .966."""
COPY = 0.15
"""Share of an update's length that others' updates do not make up, below which it is a copy: two updates with a cosine of
.989. Honest clients on digits come down to .27, with a cosine of .951."""
NEWS = 1.5
"""Agreement with the others beside the last reward, in standard deviations of a random direction's and as a mean over
`NEWS_ROUNDS`, up to which there is nothing new in a client's updates. Noise has .8."""
NEWS_ROUNDS = 10
"""Rounds of a client over which `NEWS` is a mean; with fewer nothing is said."""
MOST_COMPARED = 1000
"""Clients of a round up to which each is compared with all others."""


_SLACK = 1e-6
"""What float32 updates' cosines may be off by, so that those of copies can be inverted."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What an update of a round looks like.

    Attributes:
        echo: Cosine with the client's last reward, without its sign, 0 to 1; None where it has none.
        own: The share of its length that no combination of the others' updates makes up, 0 to 1.
        news: Cosine with the others' aggregate of what is beside the last reward, in standard deviations of a random
            direction's.
        without: The contribution after removal: the cosine with the aggregate of the others, without those that it is a
            copy of; None where there are none.
        copies: Which of the round's clients, by place, its update is a copy or a combination of, itself included.
        share: What part of a client its update is: the rank of the updates in `copies` divided by their number.
    """

    echo: float | None
    own: float
    news: float
    without: float | None
    copies: tuple[int, ...]
    share: float


def signs(
    updates: Float[Tensor, "present parameters"],
    weights: Float[Tensor, " present"],
    last_rewards: Mapping[int, SparseUpdate],
) -> list[Signs]:
    """What the updates of a round look like, in their order.

    Args:
        updates: Normalized updates, one a row, none of them zeros.
        weights: Weight of each in the aggregate.
        last_rewards: The rewards that clients got last, by place.

    Raises:
        NonFiniteValue: A value is NaN or infinite.
    """
    products = gram(updates)
    norms = products.diagonal().sqrt()
    cosines = products / norms[:, None] / norms
    groups, own, shares = _copies(cosines)
    found = []
    for place, update in enumerate(updates):
        others = weights.to(torch.float64).clone()
        others[list(groups[place])] = 0.0
        length = float((others @ products @ others).clamp(min=0.0).sqrt())
        without = float(products[place] @ others) / (float(norms[place]) * length) if length > 0 else None
        rest = weights.to(torch.float64).clone()
        rest[place] = 0.0
        echo, news = _beside(update, rest.to(updates.dtype) @ updates, last_rewards.get(place))
        found.append(Signs(echo, own[place], news, without, groups[place], shares[place]))
    return found


def findings(now: Sequence[Signs], news_before: Sequence[Sequence[float]]) -> list[tuple[Finding, ...]]:
    """What the signs of a round's clients come to, in their order.

    The first of several copies is found to be one as well: nothing says who copied.

    Args:
        now: This round's signs.
        news_before: `news` of each client in the rounds before that it took part in.
    """
    found = []
    for each, before in zip(now, news_before, strict=True):
        own: list[Finding] = []
        recent = [*before, each.news][-NEWS_ROUNDS:]
        if each.echo is not None and each.echo >= ECHO:
            own.append("its last reward")
        if len(each.copies) > 1:
            own.append("a copy")
        if len(recent) == NEWS_ROUNDS and math.fsum(map(abs, recent)) <= NEWS * NEWS_ROUNDS:
            own.append("nothing new")
        found.append(tuple(own))
    return found


def shares(now: Sequence[Signs], found: Sequence[Sequence[Finding]]) -> list[float] | None:
    """What part of a client each counts as: nothing without anything of its own, copies together as one.

    None where each counts as one, and where nobody would be left.
    """
    counted = [
        0.0 if "its last reward" in own or "nothing new" in own else each.share
        for each, own in zip(now, found, strict=True)
    ]
    return counted if any(counted) and min(counted) < 1 else None


def _beside(
    update: Float[Tensor, " parameters"], others: Float[Tensor, " parameters"], reward: SparseUpdate | None
) -> tuple[float | None, float]:
    """Cosine with the last reward, and agreement with the others in what is beside it."""
    own, theirs = update.to(torch.float64), others.to(torch.float64)
    own = own / own.norm()
    echo = None
    if reward is not None and bool(reward.values.any()):
        values = reward.values.to(torch.float64)
        values = values / values.norm()
        cosine, along = own[reward.indices] @ values, theirs[reward.indices] @ values
        echo = min(1.0, abs(float(cosine)))
        own = own.index_add(0, reward.indices, -cosine * values)
        theirs = theirs.index_add(0, reward.indices, -along * values)
    lengths = float(own.norm()), float(theirs.norm())
    # What rounding leaves of an update has no direction.
    if lengths[0] < 1e-3 or not lengths[1] > 0:
        return echo, 0.0
    return echo, float(own @ theirs) / (lengths[0] * lengths[1]) * math.sqrt(len(own))


def _copies(cosines: Float[Tensor, "present present"]) -> tuple[list[tuple[int, ...]], list[float], list[float]]:
    """Which updates depend on each other, how much each has of its own, and what part of a client it is."""
    clients = len(cosines)
    groups: list[tuple[int, ...]] = [(place,) for place in range(clients)]
    parts = [1.0] * clients
    if not 1 < clients <= MOST_COMPARED:
        return groups, [1.0] * clients, parts
    precision = torch.linalg.inv(cosines + _SLACK * torch.eye(clients, dtype=torch.float64))
    own = precision.diagonal().clamp(min=1.0).rsqrt()
    dependent = own <= COPY
    partial = precision * own[:, None] * own
    linked = (partial.abs() >= 1 / clients) & dependent[:, None] & dependent
    left = set(torch.nonzero(dependent).flatten().tolist())
    while left:
        group, reached = set[int](), {min(left)}
        while reached:
            group |= reached
            reached = set(torch.nonzero(linked[sorted(reached)].any(dim=0)).flatten().tolist()) - group
        left -= group
        members = sorted(group)
        values = torch.linalg.eigvalsh(cosines[members][:, members])
        rank = max(1, int((values > COPY**2).sum()))
        if rank == len(members):
            continue
        for place in members:
            groups[place] = tuple(members)
            parts[place] = rank / len(members)
    return groups, own.tolist(), parts
