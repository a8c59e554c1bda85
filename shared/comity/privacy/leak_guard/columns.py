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
    def summed(cls, samples: Int[Tensor, " draws"], values: Float[Tensor, "rows draws"]) -> Columns:
        """Contributions in which samples come several times, added up."""
        distinct, places = samples.unique(return_inverse=True)
        # Sample by sample: rows that lie together are added at once.
        together = values.new_zeros(len(distinct), len(values)).index_add_(0, places, values.T)
        return cls(distinct, together.T.contiguous())

    def of(self, rows: Tensor) -> Columns:
        """Those to some of the rows, by mask or index."""
        return Columns(self.samples, self.values[rows])

    def spread(self, samples: Int[Tensor, " more"]) -> Float[Tensor, "rows more"]:
        """The values over more samples, all of these among them."""
        spread = self.values.new_zeros(len(self.values), len(samples))
        spread[:, torch.searchsorted(samples, self.samples)] = self.values
        return spread

    def plus(self, other: Columns) -> Columns:
        """The sum of contributions to the same rows."""
        samples = torch.cat([self.samples, other.samples]).unique()
        return Columns(samples, self.spread(samples).add_(other.spread(samples)))

    def trimmed(self) -> Columns:
        """Without samples that contributed nothing."""
        moved = (self.values != 0).any(0)
        return Columns(self.samples[moved], self.values[:, moved])


def aligned(one: Columns, other: Columns) -> tuple[Float[Tensor, "rows s"], Float[Tensor, "rows s"]]:
    """Both over the same samples."""
    samples = torch.cat([one.samples, other.samples]).unique()
    return one.spread(samples), other.spread(samples)
