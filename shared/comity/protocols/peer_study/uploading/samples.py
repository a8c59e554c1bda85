"""Which samples may be released, and the only code that turns one into bytes: it is given no protected sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from comity.data import Dataset
from comity.errors import DataChanged, InvalidValue
from comity.protocols.peer_study.annotation.views import digest_of, digest_of_stored
from comity.tensors import Blob, Layout

_INPUT = "input"


def sample_layout(input_shape: Sequence[int]) -> Layout:
    """What the blob of one sample holds: its numbers as models take them, and nothing that says whose it is."""
    return Layout.of({_INPUT: torch.empty(*input_shape)})


def input_of(blob: Blob, layout: Layout) -> Tensor:
    """The numbers of a sample, from its blob."""
    return layout.view(blob.data)[_INPUT]


def with_copies(pool: Dataset, others: Sequence[Dataset]) -> Dataset:
    """A pool in which every copy of a protected sample is protected as well, whatever it is called.

    Args:
        pool: The pool.
        others: Other samples of the same party, of which some may be protected.
    """
    protected = {digest_of(data, place) for data in (pool, *others) for place in _protected(data)}
    if not protected:
        return pool
    marks = [digest_of(pool, place) in protected for place in range(len(pool))]
    return replace(pool, protected=torch.tensor(marks, dtype=torch.bool))


def unprotected(data: Dataset) -> Dataset:
    """The samples that are not protected."""
    if data.protected is None:
        return data
    return replace(data.select((~data.protected).nonzero().flatten()), protected=None)


class OpenSamples:
    """The samples of a pool that are not protected, by their ids: all that whatever is sent is made from.

    Args:
        data: These samples alone, see `unprotected`.
        normalization: Per-channel mean and standard deviation of the inputs.

    Raises:
        InvalidValue: The samples come with marks of which are protected: then they are not these alone.
    """

    def __init__(self, data: Dataset, normalization: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        if data.protected is not None:
            raise InvalidValue(
                "samples to be released", expected="those that are not protected", received="a pool with protected ones"
            )
        self._data = data
        self._normalization = normalization
        self._places = {sample: place for place, sample in enumerate(data.ids)}

    def __contains__(self, sample: str) -> bool:
        """Whether a sample may be released at all."""
        return sample in self._places

    def digest(self, sample: str) -> str:
        """What tells a sample from others, and from what it was before.

        Raises:
            InvalidValue: It may not be released.
        """
        return digest_of_stored(self._stored(sample))

    def blob(self, sample: str, digest: str) -> Blob:
        """A sample as it is sent.

        Args:
            sample: Its id.
            digest: Of the sample that was released.

        Raises:
            InvalidValue: It may not be released.
            DataChanged: It is another one than was released.
        """
        # It is read once: what is compared is what is sent.
        stored = self._stored(sample)
        if digest_of_stored(stored) != digest:
            raise DataChanged(
                f"sample {sample} is not the one that was released",
                expected="the pool as it was at the selection",
                received="another content of the same id",
                action="bring the pool back as it was; nothing was sent",
            )
        return self._packed(stored)

    def blobs(self) -> set[str]:
        """Digests of the blobs of all of them, hexadecimal: whatever else left was protected, or no sample of the pool."""
        return {self._packed(self._stored(each)).hex for each in self._places}

    def _stored(self, sample: str) -> Tensor:
        if not isinstance(sample, str) or sample not in self._places:
            raise InvalidValue(
                f"sample {sample!s:.100} cannot be released",
                expected="a sample of the pool that is not protected, nor a copy of a protected one",
                received="another",
                action="leave it here",
            )
        return self._data.inputs[torch.tensor([self._places[sample]])].detach().cpu()

    def _packed(self, stored: Tensor) -> Blob:
        tensors = {_INPUT: self._data.prepare(stored, *self._normalization)[0]}
        return sample_layout(self._data.input_shape).pack(tensors)


def _protected(data: Dataset) -> list[int]:
    places: list[int] = [] if data.protected is None else data.protected.nonzero().flatten().tolist()
    return places
