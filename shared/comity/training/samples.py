"""Which samples a training step sees.

The order comes from a secret that never leaves the node, keyed by session, round and epoch: a peer that knew it could
tell what each step saw. A step's samples follow from its number alone, so that a step can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from comity.randomness import derive, generator


@dataclass(frozen=True, slots=True)
class Secret:
    """A node's own randomness within one session.

    Attributes:
        key: The node's secret.
        session: Identifier of the session.
    """

    key: bytes = field(repr=False)
    session: str

    def seed(self, purpose: str, *place: int) -> int:
        """A seed for one purpose at one place, for example a round and an epoch."""
        return derive(self.key, self.session, purpose, *place)


class SampleStream:
    """All samples in random order, again and again, cut into batches of equal size.

    Args:
        samples: Number of samples.
        batch_size: Samples a step; at most `samples` are taken.
        secret: The node's randomness in the session.
        place: When the training is: its round, and whatever else tells it from others.
        purpose: What the order is for.
    """

    def __init__(self, samples: int, batch_size: int, secret: Secret, *place: int, purpose: str = "data order") -> None:
        self._samples = samples
        self._batch_size = min(batch_size, samples)
        self._secret = secret
        self._place = place
        self._purpose = purpose
        self._order: tuple[int, Tensor] | None = None

    def batch(self, step: int) -> Tensor:
        """Indices of the samples that step `step` (from 0) sees, shape [batch]."""
        begin = step * self._batch_size
        pieces = []
        while begin < (step + 1) * self._batch_size:
            epoch, position = divmod(begin, self._samples)
            piece = self._epoch(epoch)[position : position + (step + 1) * self._batch_size - begin]
            pieces.append(piece)
            begin += len(piece)
        return torch.cat(pieces)

    def _epoch(self, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            seed = self._secret.seed(self._purpose, *self._place, epoch)
            self._order = epoch, torch.randperm(self._samples, generator=generator(seed))
        return self._order[1]


class PoissonStream:
    """Each sample by its own toss of a coin in every step, as accounts of differential privacy assume.

    Args:
        samples: Number of samples.
        batch_size: Samples a step on average; at most `samples`.
        secret: The node's randomness in the session.
        round: Round that the training belongs to.
    """

    def __init__(self, samples: int, batch_size: int, secret: Secret, round: int) -> None:
        self._samples = samples
        self._rate = sampling_rate(samples, batch_size)
        self._secret = secret
        self._round = round

    def batch(self, step: int) -> Tensor:
        """Indices of the samples that step `step` (from 0) sees, shape [batch]; there may be none."""
        seed = self._secret.seed("poisson sampling", self._round, step)
        tosses = torch.rand(self._samples, dtype=torch.float64, generator=generator(seed))
        return torch.nonzero(tosses < self._rate).flatten()


def sampling_rate(samples: int, batch_size: int) -> float:
    """The probability with which a step of a private training sees a sample, in (0, 1]."""
    return min(batch_size, samples) / samples
