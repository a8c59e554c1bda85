"""Which samples a training step sees.

The draws come from a secret that never leaves the node, keyed by session, round and step: a peer that knew it could tell
what each step saw. A step's samples follow from its number alone, so that a step can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Generator, Tensor

from comity.randomness import derive, generator

_PERMUTED = 4096
"""Up to so many samples all are put in order and the first taken; a permutation of them costs next to nothing."""
_SPARSE = 0.25
"""Above this share of the samples the same, since most draws would have come before."""


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
        """A seed for one purpose at one place, for example a round and a step."""
        return derive(self.key, self.session, purpose, *place)


class SampleStream:
    """Every batch an independent draw of samples, without replacement.

    A stream that passes over all samples before it begins anew would give one sample away: where the batches of k steps end
    one short of, or one after, a pass, the sum of their gradients is that over all samples plus or minus one.

    Args:
        samples: Number of samples.
        batch_size: Samples a step; at most `samples` are taken.
        secret: The node's randomness in the session.
        place: When the training is: its round, and whatever else tells it from others.
        purpose: What the draws are for.
    """

    def __init__(self, samples: int, batch_size: int, secret: Secret, *place: int, purpose: str = "batches") -> None:
        self._samples = samples
        self._batch_size = min(batch_size, samples)
        self._secret = secret
        self._place = place
        self._purpose = purpose

    def batch(self, step: int) -> Tensor:
        """Indices of the samples that step `step` (from 0) sees, shape [batch], each once."""
        draws = generator(self._secret.seed(self._purpose, *self._place, step))
        if self._samples <= _PERMUTED or self._batch_size > self._samples * _SPARSE:
            return torch.randperm(self._samples, generator=draws)[: self._batch_size]
        return self._sparse(draws)

    def _sparse(self, draws: Generator) -> Tensor:
        """A small draw of many samples, in time that does not grow with their number: what came before is passed over."""
        drawn = torch.empty(0, dtype=torch.long)
        while len(drawn) < self._batch_size:
            more = torch.randint(self._samples, (self._batch_size,), generator=draws)
            together = torch.cat([drawn, more])
            _, first = np.unique(together.numpy(), return_index=True)
            drawn = together[torch.from_numpy(np.sort(first))]
        return drawn[: self._batch_size]


class BalancedStream:
    """Every batch an independent draw of samples, without replacement, in which each class is as likely as any.

    The next sample is of each class that the party has with the same probability, as long as there are samples of it left:
    of a class with few samples a large batch has all.

    Args:
        labels: The class of each sample, int64 `[samples]`.
        batch_size: Samples a step; at most as many as there are are taken.
        secret: The node's randomness in the session.
        round: Round that the training belongs to.
    """

    def __init__(self, labels: Tensor, batch_size: int, secret: Secret, round: int) -> None:
        _, classes, counts = labels.cpu().unique(return_inverse=True, return_counts=True)
        # A race of exponential times whose rates are the weights is a draw without replacement by these weights.
        self._of_class = counts[classes].double()
        self._batch_size = min(batch_size, len(labels))
        self._secret = secret
        self._round = round

    def batch(self, step: int) -> Tensor:
        """Indices of the samples that step `step` (from 0) sees, shape [batch], each once."""
        draws = generator(self._secret.seed("balanced batches", self._round, step))
        tosses = torch.rand(len(self._of_class), dtype=torch.float64, generator=draws)
        times: Tensor = -tosses.log() * self._of_class
        first: Tensor = times.topk(self._batch_size, largest=False).indices
        return first


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
