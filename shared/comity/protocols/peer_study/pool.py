"""Pools of samples, read in blocks: a pool may be larger than memory, and of what is read only scores stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from comity import interruption
from comity.errors import InvalidValue

BLOCK = 1024
"""Samples that are read at once."""


class Pool(Protocol):
    """Samples by index."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, indices: Int[Tensor, " n"]) -> Float[Tensor, "n ..."]:
        """Samples as models take them, in the order of the indices."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TensorPool:
    """A pool in a tensor; one over a file that is mapped into memory is read as far as it is asked for.

    Attributes:
        inputs: `[samples, ...]`, of any number type.
        scale: What a stored value is multiplied with.
    """

    inputs: Tensor
    scale: float = 1.0

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.inputs)

    def read(self, indices: Int[Tensor, " n"]) -> Float[Tensor, "n ..."]:
        """float32, scaled."""
        return self.inputs[indices].to(torch.float32) * self.scale


def in_blocks(
    pool: Pool, indices: Int[Tensor, " n"], compute: Callable[[Tensor], Tensor], block: int = BLOCK
) -> Tensor:
    """What is computed of samples, a block at a time; without gradients.

    Args:
        pool: Where they are read from.
        indices: Which, in the order of the result.
        compute: Of a block, a tensor with one row a sample.
        block: Samples at once, 1 or more.

    Raises:
        InvalidValue: The block is out of range, or there are no samples.
    """
    if block < 1:
        raise InvalidValue("Samples in a block", expected="1 or more", received=block)
    if not len(indices):
        raise InvalidValue("Samples to be read", expected="1 or more", received=0)
    parts = []
    with torch.no_grad():
        for some in indices.split(block):
            interruption.point()
            parts.append(compute(pool.read(some)))
    return torch.cat(parts)
