"""A blob as what changed since another of the same length: fewer bytes where most values moved a little, none lost.

Both are taken for 32-bit words. The bits of two floats that lie close together are close as integers, so that the
difference modulo 2**32, its sign moved into the lowest bit, has zeros at the top. Words that did not change, which are
many where units of a network are dead, are left out by a bitmap. Bytes of one significance stand together; Zstandard, at
its fastest level, shortens what it can. Other types lose nothing either: sums modulo 2**32 are exact whatever the bits
mean.

    header    version; length of the blob
    blocks    of up to `_WORDS` words each: five lengths; which words changed, the first in the highest bit; the changes'
              lowest bytes, their second, third and highest bytes
    rest      bytes after the last whole word, as they are
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from comity.errors import TensorMismatch
from comity.tensors.blob import Blob
from comity.tensors.zstandard import Bytes, restore, shorten

Words = NDArray[np.uint32]

_HEADER = struct.Struct("<BxxxxxxxQ")
_LENGTHS = struct.Struct("<5I")
_VERSION = 1
_WORD = np.dtype("<u4")
_WORDS = 2**18
"""Words in a block: a mebibyte stays in a processor's cache from one step to the next."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a blob travels as what changed since another.

    Attributes:
        digest: BLAKE3 of the encoded bytes, 32 bytes.
        base: Digest of the other blob.
    """

    digest: bytes
    base: bytes


def shortest(blob: Blob, base: Blob | None) -> tuple[Blob, Encoding | None]:
    """What travels for a blob: what changed since the base where that is shorter, or else the blob itself.

    Args:
        blob: The blob.
        base: Another that the receiver holds; None where there is none.

    Returns:
        What travels, under its own digest; and its encoding, where it is one.

    Raises:
        TensorMismatch: The base has another length.
    """
    if base is None:
        return blob, None
    sent = Blob.of(encode(blob.data, base.data))
    return (sent, Encoding(sent.digest, base.digest)) if sent.size < blob.size else (blob, None)


def encode(data: memoryview, base: memoryview) -> bytes:
    """Writes down what changed; the same two always give the same bytes, with one version of zstd.

    Args:
        data: The bytes.
        base: As many others.

    Raises:
        TensorMismatch: They are not as many.
    """
    if len(data) != len(base):
        raise _mismatch(f"a base of {len(data)} bytes", f"one of {len(base)}")
    now, then, rest = _words(data), _words(base), len(data) // _WORD.itemsize * _WORD.itemsize
    parts: list[bytes | memoryview] = [_HEADER.pack(_VERSION, len(data))]
    for begin in range(0, len(now), _WORDS):
        change = (now[begin : begin + _WORDS] - then[begin : begin + _WORDS]).view(np.int32)
        changed = change != 0
        change = change[changed]
        folded = (change << 1) ^ (change >> 31)
        planes = folded.view(np.uint8).reshape(-1, _WORD.itemsize).T
        stored = [shorten(np.packbits(changed)), *map(shorten, planes)]
        parts += [_LENGTHS.pack(*map(len, stored)), *stored]
    return b"".join((*parts, data[rest:]))


def decode(encoded: memoryview, base: memoryview) -> memoryview:
    """Reads what a peer's `encode` wrote. Memory is taken in proportion to the base, whatever the bytes claim.

    Args:
        encoded: The bytes.
        base: What they were written against.

    Returns:
        As many bytes as the base has.

    Raises:
        TensorMismatch: The bytes are no encoding against a base of this length.
    """
    if len(encoded) < _HEADER.size:
        raise _mismatch(f"{_HEADER.size} bytes or more", f"{len(encoded)}")
    version, size = _HEADER.unpack_from(encoded)
    if (version, size) != (_VERSION, len(base)):
        raise _mismatch(f"version {_VERSION} of {len(base)} bytes", f"version {version} of {size}")
    data = np.empty(size, np.uint8).data
    now, then = _words(data), _words(base)
    at = _HEADER.size
    for begin in range(0, len(now), _WORDS):
        if len(encoded) < at + _LENGTHS.size:
            raise _mismatch("a block", "nothing")
        lengths = _LENGTHS.unpack_from(encoded, at)
        # Slices past the end are shorter, which `restore` notices.
        ends = list(accumulate(lengths, initial=at + _LENGTHS.size))
        bitmap, *planes = (encoded[start:end] for start, end in pairwise(ends))
        at = ends[-1]
        old = then[begin : begin + _WORDS]
        changed = np.unpackbits(_stored(bitmap, -(-len(old) // 8)), count=len(old)).view(np.bool_)
        folded = np.empty(np.count_nonzero(changed), _WORD)
        for plane, stored in zip(folded.view(np.uint8).reshape(-1, _WORD.itemsize).T, planes, strict=True):
            plane[:] = _stored(stored, len(folded))
        change = np.zeros(len(old), _WORD)
        change[changed] = (folded >> 1) ^ (-(folded & 1).view(np.int32)).view(np.uint32)
        np.add(old, change, out=now[begin : begin + _WORDS])
    rest = now.nbytes
    if len(encoded) - at != size - rest:
        raise _mismatch(f"{size - rest} bytes after the last block", f"{len(encoded) - at}")
    data[rest:] = encoded[at:]
    return data


def _stored(part: memoryview, length: int) -> Bytes:
    return restore(part, length, compressed=len(part) != length)


def _words(data: memoryview) -> Words:
    return np.frombuffer(data, _WORD, len(data) // _WORD.itemsize)


def _mismatch(expected: str, received: str) -> TensorMismatch:
    return TensorMismatch("The encoding of what changed", expected=expected, received=received)
