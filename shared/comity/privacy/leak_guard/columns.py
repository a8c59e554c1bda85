"""What samples contributed to rows, a column for each sample."""

from __future__ import annotations

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

    @classmethod
    def summed(cls, samples: Int[Tensor, " draws"], values: Float[Tensor, "draws rows"]) -> Columns:
        """Contributions in which samples come several times, added up."""
        distinct, places = samples.unique(return_inverse=True)
        together = values.new_zeros(len(distinct), values.shape[1]).index_add_(0, places, values)
        return cls(distinct, together.T.contiguous())

    def of(self, rows: Tensor) -> Columns:
        """Those to some of the rows, by mask or index."""
        return Columns(self.samples, self.values[rows])

    def spread(self, samples: Int[Tensor, " more"]) -> Float[Tensor, "rows more"]:
        """The values over more samples, all of these among them."""
        if len(samples) == len(self.samples):
            return self.values
        spread = self.values.new_zeros(len(self.values), len(samples))
        return spread.index_copy_(1, torch.searchsorted(samples, self.samples), self.values)

    def plus(self, other: Columns) -> Columns:
        """The sum of contributions to the same rows."""
        samples = torch.cat([self.samples, other.samples]).unique()
        return Columns(samples, self.spread(samples) + other.spread(samples))

    def trimmed(self) -> Columns:
        """Without samples that contributed nothing."""
        moved = (self.values != 0).any(0)
        return Columns(self.samples[moved], self.values[:, moved])


def aligned(one: Columns, other: Columns) -> tuple[Float[Tensor, "rows s"], Float[Tensor, "rows s"]]:
    """Both over the same samples."""
    samples = torch.cat([one.samples, other.samples]).unique()
    return one.spread(samples), other.spread(samples)
