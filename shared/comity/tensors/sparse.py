"""The kept entries of a vector as bytes: never longer than the whole vector, by more than a short header.

Places are written as the gaps between them where few are kept, as the gaps between those that are not where few are
left out, and as a bitmap in between. Values are float32, their bytes grouped by significance: the bytes that hold sign
and exponent, which differ little among large entries, stand together. Zstandard, at its fastest level, then shortens
whatever it can; both ways lose nothing.

    header    version, how places are written, what is compressed; size, entries kept, two lengths of the places
    places    gaps as LEB128, or a bitmap with the lowest place in the highest bit of the first byte
    values    all lowest bytes, all second bytes, and so on
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from comity.errors import InvalidValue, NonFiniteValue, TensorMismatch
from comity.tensors.zstandard import Bytes, restore, shorten

LARGEST_SIZE = 2**32
"""Entries that a vector may have."""


class _Form(IntEnum):
    """How places are written."""

    ALL = 0
    GAPS = 1
    ABSENT_GAPS = 2
    BITMAP = 3


_HEADER = struct.Struct("<BBBxQQQQ")
_VERSION = 1
_PLACES_COMPRESSED, _VALUES_COMPRESSED = 1, 2
_FEW = 8
"""Gaps are shorter than a bitmap, once both are compressed, where they are fewer than one entry in so many."""
_LONGEST_GAP = 5
"""Bytes of a gap below 2**32."""
_VALUE = np.dtype("<f4")


def largest_encoding(size: int) -> int:
    """The most bytes that `encode` makes of a vector with so many entries."""
    return _HEADER.size + _VALUE.itemsize * size


def encode(indices: Int[Tensor, " kept"], values: Float[Tensor, " kept"], size: int) -> bytes:
    """Writes down some entries of a vector; the same entries always give the same bytes, with one version of zstd.

    Args:
        indices: Where they are, int64, ascending, each in [0, size).
        values: What they are, float32.
        size: Entries of the whole vector, 1 to 2**32.

    Raises:
        InvalidValue: The arguments do not fit each other or this description.
    """
    places = indices.detach().cpu().numpy()
    if not 1 <= size <= LARGEST_SIZE:
        raise InvalidValue("The size of a sparse vector", expected=f"1 to {LARGEST_SIZE}", received=size)
    if indices.dtype != torch.int64 or values.dtype != torch.float32 or indices.ndim != 1:
        received = f"{indices.dtype} {list(indices.shape)} and {values.dtype}"
        raise InvalidValue("Indices and values", expected="torch.int64 [kept] and torch.float32", received=received)
    if values.shape != indices.shape:
        received = f"{list(indices.shape)} and {list(values.shape)}"
        raise InvalidValue("Indices and values", expected="as many of each", received=received)
    if len(places) and not (places[0] >= 0 and places[-1] < size and bool((places[1:] > places[:-1]).all())):
        raise InvalidValue("Indices", expected=f"0 to {size - 1}, ascending", received="others")
    form, written = _write_places(places, size)
    raw = np.ascontiguousarray(values.detach().cpu().numpy(), _VALUE)
    planes = np.ascontiguousarray(raw.view(np.uint8).reshape(-1, _VALUE.itemsize).T)
    stored_places, stored_values = shorten(written), shorten(planes)
    flags = _PLACES_COMPRESSED * (len(stored_places) < written.nbytes)
    flags |= _VALUES_COMPRESSED * (len(stored_values) < planes.nbytes)
    header = _HEADER.pack(_VERSION, form, flags, size, len(places), written.nbytes, len(stored_places))
    return b"".join((header, stored_places, stored_values))


def decode(data: bytes | bytearray | memoryview, size: int) -> tuple[Int[Tensor, " kept"], Float[Tensor, " kept"]]:
    """Reads what a peer's `encode` wrote. Memory is taken in proportion to `size`, whatever the bytes claim.

    Args:
        data: The bytes.
        size: Entries that the whole vector has to have, 1 to 2**32.

    Returns:
        Where the entries are, int64, ascending, each in [0, size); and what they are, float32, finite.

    Raises:
        TensorMismatch: The bytes are not an encoding of entries of a vector of this size.
        NonFiniteValue: A value is NaN or infinite.
    """
    view = memoryview(data).cast("B")
    if not _HEADER.size <= len(view) <= largest_encoding(size):
        raise _mismatch(f"{_HEADER.size} to {largest_encoding(size)} bytes", f"{len(view)} bytes")
    version, form, flags, claimed, kept, length, stored = _HEADER.unpack_from(view)
    if version != _VERSION or view[3] or form > _Form.BITMAP or flags > _PLACES_COMPRESSED | _VALUES_COMPRESSED:
        raise _mismatch(f"version {_VERSION}", f"version {version}, form {form}, flags {flags}")
    if claimed != size or kept > size:
        raise _mismatch(f"entries of {size}", f"{kept} entries of {claimed}")
    least, most = _length_bounds(form, size, kept)
    if not least <= length <= most or stored > len(view) - _HEADER.size:
        raise _mismatch(f"{least} to {most} bytes of places", f"{length} bytes, stored in {stored}")
    body = view[_HEADER.size :]
    written = restore(body[:stored], length, compressed=bool(flags & _PLACES_COMPRESSED))
    planes = restore(body[stored:], _VALUE.itemsize * kept, compressed=bool(flags & _VALUES_COMPRESSED))
    places = _read_places(written, form, size, kept)
    values = np.array(planes.reshape(_VALUE.itemsize, kept).T, order="C").view(_VALUE).reshape(kept)
    if not bool(np.isfinite(values).all()):
        raise NonFiniteValue("A sparse update", expected="finite values", received="NaN or infinity")
    return torch.from_numpy(places), torch.from_numpy(values.astype(np.float32, copy=False))


def _write_places(places: NDArray[np.int64], size: int) -> tuple[_Form, Bytes]:
    kept = len(places)
    if kept == size:
        return _Form.ALL, np.empty(0, np.uint8)
    if kept * _FEW < size:
        return _Form.GAPS, _write_gaps(places)
    mask = np.zeros(size, np.bool_)
    mask[places] = True
    if (size - kept) * _FEW < size:
        return _Form.ABSENT_GAPS, _write_gaps(np.flatnonzero(~mask))
    return _Form.BITMAP, np.packbits(mask)


def _read_places(written: Bytes, form: int, size: int, kept: int) -> NDArray[np.int64]:
    match form:
        case _Form.GAPS:
            return _read_gaps(written, size, kept)
        case _Form.ABSENT_GAPS:
            mask = np.ones(size, np.bool_)
            mask[_read_gaps(written, size, size - kept)] = False
            return np.flatnonzero(mask)
        case _Form.BITMAP:
            bits = np.unpackbits(written)
            places = np.flatnonzero(bits)
            if len(places) != kept or bits[size:].any():
                raise _mismatch(f"a bitmap of {kept} entries of {size}", f"one of {len(places)}")
            return places
    return np.arange(size)


def _length_bounds(form: int, size: int, kept: int) -> tuple[int, int]:
    """The least and the most bytes that places can be written in."""
    match form:
        case _Form.ALL if kept == size:
            return 0, 0
        case _Form.GAPS:
            return kept, kept * _LONGEST_GAP
        case _Form.ABSENT_GAPS:
            return size - kept, (size - kept) * _LONGEST_GAP
        case _Form.BITMAP:
            return -(-size // 8), -(-size // 8)
    return 1, 0


def _write_gaps(places: NDArray[np.int64]) -> Bytes:
    """How many entries lie before each place and after the one before, in LEB128."""
    gaps = np.diff(places, prepend=-1) - 1
    if not len(gaps) or gaps.max() < 2**7:
        return gaps.astype(np.uint8)
    lengths = np.ones(len(gaps), np.int64)
    for more in range(1, _LONGEST_GAP):
        lengths += gaps >= 1 << 7 * more
    ends = lengths.cumsum()
    written = np.empty(ends[-1], np.uint8)
    begins = ends - lengths
    for at in range(_LONGEST_GAP):
        longer = lengths > at
        continued = (lengths[longer] > at + 1).astype(np.int64) << 7
        written[begins[longer] + at] = (gaps[longer] >> 7 * at & 0x7F) | continued
    return written


def _read_gaps(written: Bytes, size: int, count: int) -> NDArray[np.int64]:
    ends = np.flatnonzero(written < 2**7)
    if len(ends) != count or (count and ends[-1] != len(written) - 1):
        raise _mismatch(f"{count} gaps", f"{len(ends)}")
    lengths = np.diff(ends, prepend=-1)
    if count and lengths.max() > _LONGEST_GAP:
        raise _mismatch(f"gaps of at most {_LONGEST_GAP} bytes", f"one of {lengths.max()}")
    if len(written) == count:
        gaps = written.astype(np.int64)
    else:
        gaps = np.zeros(count, np.int64)
        begins = ends - lengths + 1
        for at in range(_LONGEST_GAP):
            longer = lengths > at
            gaps[longer] |= (written[begins[longer] + at] & 0x7F).astype(np.int64) << 7 * at
    # In floating point first, where a sum that is too large for integers is only inexact.
    if gaps.sum(dtype=np.float64) + count > size:
        raise _mismatch(f"places below {size}", "a place beyond")
    return (gaps + 1).cumsum() - 1


def _mismatch(expected: str, received: str) -> TensorMismatch:
    return TensorMismatch("The encoding of a sparse update", expected=expected, received=received)
