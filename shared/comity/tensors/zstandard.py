"""Bytes, compressed where that makes them fewer."""

from __future__ import annotations

import numpy as np
from backports import zstd
from numpy.typing import NDArray

from comity.errors import TensorMismatch

Bytes = NDArray[np.uint8]

_LEVEL = 1


def shorten(raw: Bytes) -> memoryview:
    """Compressed bytes where they are fewer, or else the same."""
    plain = np.ascontiguousarray(raw).reshape(-1).data
    compressed = zstd.compress(plain, _LEVEL)
    return memoryview(compressed) if len(compressed) < len(plain) else plain


def restore(stored: memoryview, length: int, *, compressed: bool) -> Bytes:
    """Exactly so many bytes from what is stored; takes no more memory than that, whatever the bytes claim.

    Raises:
        TensorMismatch: They are not so many, or no Zstandard frame.
    """
    if not compressed:
        if len(stored) != length:
            raise _mismatch(f"{length} bytes", f"{len(stored)}")
        return np.frombuffer(stored, np.uint8)
    # A frame names the memory that it needs: no more than its own content would take is granted.
    limit = max(length.bit_length(), zstd.DecompressionParameter.window_log_max.bounds()[0])
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: limit}
    decompressor = zstd.ZstdDecompressor(options=options)
    try:
        raw = decompressor.decompress(stored, max_length=length)
    except zstd.ZstdError as error:
        raise _mismatch("a Zstandard frame", str(error)) from error
    if len(raw) != length or not decompressor.eof or decompressor.unused_data:
        raise _mismatch(f"a Zstandard frame of {length} bytes", "another length")
    return np.frombuffer(raw, np.uint8)


def _mismatch(expected: str, received: str) -> TensorMismatch:
    return TensorMismatch("The encoding of tensors", expected=expected, received=received)
