"""Inputs near those that a decoder takes, for Hypothesis."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

LONGEST = 2**16

_TOKENS = (
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff" * 4,
    b"\xff" * 9 + b"\x01",
    b"\x00" * 8,
    b"nan",
    b"1e999",
    b"-1",
    b"9" * 30,
    b"null",
    b"[]",
    b"{}",
    b'"',
    b"\\ud800",
    b"\n",
    b"\t",
    b"../",
)
"""What numbers, texts and tables of some format end at, or begin another of."""


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed with some of it changed, cut, repeated or replaced, or bytes that nobody chose."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.binary(max_size=200))
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 5))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 8) | st.integers(0, len(data))))
        match draw(st.sampled_from(("flip", "cut", "insert", "replace", "repeat", "splice"))):
            case "flip" if begin < len(data):
                data = data[:begin] + bytes([data[begin] ^ 1 << draw(st.integers(0, 7))]) + data[begin + 1 :]
            case "cut":
                data = data[:begin] + data[end:]
            case "insert":
                data = data[:begin] + draw(st.sampled_from(_TOKENS)) + data[begin:]
            case "replace":
                data = data[:begin] + draw(st.binary(min_size=end - begin, max_size=end - begin)) + data[end:]
            case "repeat":
                data = data[:begin] + data[begin:end] * draw(st.integers(2, 20)) + data[end:]
            case "splice":
                other = draw(st.sampled_from(seeds))
                data = data[:begin] + other[min(begin, len(other)) :]
    return data[:LONGEST]
