"""What is painted in Label Studio: a picture's pixels as runs of equal numbers, in bits.

The format is rle-pack's. First how many numbers there are (32 bits), how many bits one has, less one (5), and of how many bits
the four kinds of run lengths are, less one each (4 times 4). Then runs: a bit that says whether all of a run are the same, the
kind of its length (2), its length less one, and the number, or as many numbers. A pixel is four of them, of which Label Studio
goes by the last: what is not 0 is painted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Painted = NDArray[np.bool_]

_COUNT, _WORD, _KIND, _LENGTH = 32, 5, 2, 4
_CHANNELS, _BITS, _LENGTHS = 4, 8, (3, 4, 8, 16)
"""What is written: numbers of eight bits, and run lengths of so many."""


def encode(painted: Painted) -> list[int]:
    """The bytes of what is painted, `[height, width]`."""
    numbers = np.repeat(painted.ravel(), _CHANNELS)
    ends = np.append(np.flatnonzero(numbers[1:] != numbers[:-1]), len(numbers) - 1)
    parts = [f"{len(numbers):0{_COUNT}b}", f"{_BITS - 1:0{_WORD}b}", *(f"{each - 1:0{_LENGTH}b}" for each in _LENGTHS)]
    for end, length in zip(ends.tolist(), np.diff(ends, prepend=-1).tolist(), strict=True):
        value = 255 if numbers[end] else 0
        for left in range(length, 0, -(1 << _LENGTHS[-1])):
            run = min(left, 1 << _LENGTHS[-1])
            kind = next(at for at, bits in enumerate(_LENGTHS) if run <= 1 << bits)
            parts.append(f"1{kind:0{_KIND}b}{run - 1:0{_LENGTHS[kind]}b}{value:0{_BITS}b}")
    bits = "".join(parts)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def decode(rle: Sequence[int], size: tuple[int, int]) -> Painted:
    """What is painted, `[height, width]`.

    Args:
        rle: The bytes.
        size: Height and width of the picture.

    Raises:
        ValueError: They are none, or of another picture.
    """
    data = bytes(rle)
    bits, at = f"{int.from_bytes(data):0{8 * len(data)}b}", 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        if at > len(bits):
            raise ValueError("the runs end before the picture does")
        return int(bits[at - count : at], 2)

    count, wanted = read(_COUNT), _CHANNELS * size[0] * size[1]
    if count != wanted:
        raise ValueError(f"{count} numbers for the {wanted} of {size[0]}x{size[1]} pixels")
    word = read(_WORD) + 1
    lengths = [read(_LENGTH) + 1 for _ in range(1 << _KIND)]
    numbers, place = np.zeros(count, dtype=np.bool_), 0
    while place < count:
        is_run = read(1)
        length = read(lengths[read(_KIND)]) + 1
        if length > count - place:
            raise ValueError("the runs are longer than the picture")
        if is_run:
            numbers[place : place + length] = read(word) > 0
        else:
            numbers[place : place + length] = [read(word) > 0 for _ in range(length)]
        place += length
    found: Painted = numbers.reshape(*size, _CHANNELS)[:, :, _CHANNELS - 1]
    return found
