"""A client's samples: those that are labelled from the beginning, and its pool."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from comity.data import Dataset
from comity.protocols.peer_study.choices import IGNORED
from comity.protocols.peer_study.settings import Settings
from comity.protocols.peer_study.students import Labelled


class ClientPool:
    """A client's samples, as models take them: those that are labelled from the beginning, and then the pool.

    Args:
        known: Samples with labels.
        pool: Samples of the split `pool`, protected ones too.
        normalization: Per-channel mean and standard deviation of the inputs.
        device: Where models live.

    Attributes:
        known: See above.
        pool: See above.
    """

    def __init__(
        self,
        known: Dataset,
        pool: Dataset,
        normalization: tuple[tuple[float, ...], tuple[float, ...]],
        device: torch.device,
    ) -> None:
        self.known = known
        self.pool = pool
        self._normalization = normalization
        self._device = device

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.known) + len(self.pool)

    def read(self, indices: Int[Tensor, " n"]) -> Float[Tensor, "n ..."]:
        """See `Pool.read`."""
        first = len(self.known)
        rows = torch.empty(len(indices), *self.pool.input_shape)
        for data, there in ((self.known, indices < first), (self.pool, indices >= first)):
            if bool(there.any()):
                places = indices[there] - (0 if data is self.known else first)
                rows[there] = data.prepare(data.inputs[places], *self._normalization)
        return rows.to(self._device)

    def free(self, labelled: Int[Tensor, " n"]) -> Int[Tensor, " candidates"]:
        """Samples of the pool that may be chosen: neither protected nor among these."""
        free = torch.ones(len(self), dtype=torch.bool)
        free[: len(self.known)] = False
        if self.pool.protected is not None:
            free[len(self.known) :] &= ~self.pool.protected
        free[labelled] = False
        return free.nonzero().flatten()

    def ids(self, indices: Int[Tensor, " n"]) -> list[str]:
        """What samples of the pool are called."""
        return [self.pool.ids[each - len(self.known)] for each in indices.tolist()]

    def labelled(self, labels: Labelled) -> Dataset:
        """Samples with their labels, those that are known from the beginning first; nothing protected is among them."""
        chosen = self.pool.select(labels.indices - len(self.known))
        chosen = replace(chosen, labels=labels.labels.to(self.known.labels.dtype), protected=None, ids=())
        if not len(chosen):
            return self.known
        if not len(self.known):
            return replace(chosen, classes=self.known.classes)
        return self.known.concat(replace(chosen, classes=self.known.classes))


def are_people_asked(settings: Settings, pool: Dataset) -> bool:
    """Whether people say the labels of what a client chooses, and not its pool."""
    return settings.labels == "people" or (settings.labels is None and lacks_labels(pool))


def lacks_labels(pool: Dataset) -> bool:
    """Whether a sample of a pool has no label: no class, or a mask of which no pixel counts."""
    if pool.labels.ndim == 1:
        return bool((pool.labels < 0).any())
    return bool((pool.labels == IGNORED).flatten(start_dim=1).all(dim=1).any())
