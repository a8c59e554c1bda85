"""What samples contributed to rows, a column for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Columns:
    """Contributions of samples to some rows.

    Attributes:
        samples: Indices of the samples, rising.
        values: What each added to each row.
    """

    samples: Int[Tensor, " samples"]
    values: Float[Tensor, "rows samples"]

    @classmethod
    def none(cls, rows: int) -> Columns:
        """No sample's contributions."""
        return cls(torch.empty(0, dtype=torch.long), torch.empty(rows, 0))

    def of(self, rows: Int[Tensor, " some"]) -> Columns:
        """Those to some of the rows."""
        return Columns(self.samples, self.values.index_select(0, rows))

    def trimmed(self) -> Columns:
        """Without samples that contributed nothing."""
        moved = torch.nonzero((self.values != 0).any(0)).flatten()
        if len(moved) == len(self.samples):
            return self
        return Columns(self.samples[moved], self.values.index_select(1, moved))


class Draws:
    """What the layers of one release have in common: which samples the batches drew. Most have seen the same ones."""

    def __init__(self) -> None:
        self._distinct: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def summed(self, drawn: Sequence[tuple[Int[Tensor, " batch"], Float[Tensor, "batch rows"]]]) -> Columns:
        """Contributions by batch, in which samples come several times, added up by sample."""
        # The batches are in the hands of the caller, so that no two of them are told apart by an address that was reused.
        batches = tuple(id(samples) for samples, _ in drawn)
        if batches not in self._distinct:
            together = torch.cat([samples for samples, _ in drawn]).cpu()
            self._distinct[batches] = together.unique(return_inverse=True)
        distinct, places = self._distinct[batches]
        values = torch.cat([each for _, each in drawn]).cpu()
        total = values.new_zeros(len(distinct), values.shape[1]).index_add_(0, places, values)
        return Columns(distinct, total.T.contiguous())
