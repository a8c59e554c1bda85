"""Inputs that do not fit in memory: they are read when a step asks for them, in the order in which it asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from comity.errors import InvalidValue

Reader = Callable[[Sequence[int]], Tensor]
"""Reads the inputs at these places of a source, in this order, uint8 or float32 `[places, *input_shape]`."""


class ReadInputs:
    """Stands where a data set has its inputs; an index of samples reads them.

    Args:
        read: Reads inputs.
        places: Which places of the source the samples are, int64 `[samples]`.
        like: One input, whose shape and dtype all have.
        stamp: What changes when what is read changes, as far as the source can tell without reading all of it.
        device: Where what is read goes.
    """

    def __init__(
        self, read: Reader, places: Tensor, like: Tensor, stamp: str = "", device: torch.device | str = "cpu"
    ) -> None:
        self._read = read
        self._places = places
        self._like = like
        self.stamp = stamp
        self.device = torch.device(device)

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._places)

    @property
    def dtype(self) -> torch.dtype:
        """See `Tensor.dtype`."""
        return self._like.dtype

    @property
    def shape(self) -> torch.Size:
        """See `Tensor.shape`."""
        return torch.Size((len(self), *self._like.shape))

    @property
    def ndim(self) -> int:
        """See `Tensor.ndim`."""
        return 1 + self._like.ndim

    def __getitem__(self, indices: Tensor) -> Tensor:
        """The inputs of the samples at these places, in this order.

        Raises:
            InvalidValue: One cannot be read, is not like the others, or is not finite.
        """
        wanted = self._places[indices.cpu()].tolist()
        try:
            found = self._read(wanted)
        except InvalidValue:
            raise
        except Exception as error:
            raise InvalidValue(
                "inputs cannot be read",
                expected=f"{self.dtype} {list(self._like.shape)} each",
                received=f"{type(error).__name__}: {error}",
                action="look at the source of the data",
            ) from error
        if (found.dtype, found.shape) != (self.dtype, torch.Size((len(wanted), *self._like.shape))):
            raise InvalidValue(
                "inputs that were read are not like those before them",
                expected=f"{self.dtype} [{len(wanted)}, {', '.join(map(str, self._like.shape))}]",
                received=f"{found.dtype} {list(found.shape)}",
                action="prepare all in the same way",
            )
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise InvalidValue(
                "inputs that were read are not all finite",
                expected="finite numbers",
                received=f"{int((~torch.isfinite(found)).sum())} that are NaN or infinite",
                action="remove or fill them in",
            )
        return found.to(self.device)

    def select(self, indices: Tensor) -> ReadInputs:
        """Those of some of the samples; nothing is read for that."""
        return ReadInputs(self._read, self._places[indices.cpu()], self._like, self.stamp, self.device)

    def to(self, device: torch.device | str) -> ReadInputs:
        """The same, with what is read going to a device."""
        return ReadInputs(self._read, self._places, self._like, self.stamp, device)


def of_pairs(pairs: Sequence[tuple[Tensor, object]]) -> Reader:
    """Reads from a torch data set of pairs, as a `DataLoader` without workers does."""

    def read(places: Sequence[int]) -> Tensor:
        found = torch.stack([torch.as_tensor(pairs[place][0]) for place in places])
        return found if found.dtype == torch.uint8 else found.to(torch.float32)

    return read
