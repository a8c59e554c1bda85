"""A blob comes back from what changed since another, to the last bit, and a peer's bytes can do no harm."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import TensorMismatch
from comity.tensors import Blob, Layout, delta
from comity.tensors.delta import decode, encode, shortest

LONGEST_ADDED = 16 + 20
"""Bytes that an encoding of up to a block may have more than the blob: a header, and the lengths of a block."""


def restored(data: bytes | bytearray, base: bytes | bytearray) -> bytes:
    return bytes(decode(memoryview(encode(memoryview(data), memoryview(base))), memoryview(base)))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two buffers of one length: any bits at all, or some words of one changed."""
    size = draw(st.integers(0, 60) | st.integers(61, 5000))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    base = generator.bytes(size)
    if draw(st.booleans()):
        return generator.bytes(size), base
    data = np.frombuffer(base, np.uint8).copy()
    at = generator.random(size) < draw(st.sampled_from([0.0, 0.001, 0.1, 0.9]))
    data[at] = generator.integers(0, 256, int(at.sum()), np.uint8)
    return data.tobytes(), base


@given(pairs())
def test_every_bit_comes_back(pair: tuple[bytes, bytes]) -> None:
    assert restored(*pair) == pair[0]


@given(pairs())
def test_it_is_hardly_longer_than_the_blob_and_always_the_same(pair: tuple[bytes, bytes]) -> None:
    data, base = map(memoryview, pair)
    assert encode(data, base) == encode(data, base)
    # One bit a word says which changed.
    assert len(encode(data, base)) <= len(data) + len(data) // 32 + 1 + LONGEST_ADDED


SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 3.4e38, float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize("now", SPECIAL)
@pytest.mark.parametrize("then", SPECIAL)
def test_floats_that_arithmetic_would_lose(now: float, then: float) -> None:
    data, base = (np.full(9, value, np.float32).tobytes() for value in (now, then))
    assert restored(data, base) == data


def test_payloads_of_nan_and_other_types_come_back() -> None:
    bits = np.array([0x7FC00001, 0xFFC0DEAD, 0x7F800001, 0x80000000, 0, 0xFFFFFFFF], np.uint32)
    assert restored(bits.tobytes(), bits[::-1].tobytes()) == bits.tobytes()
    states = [
        {
            "mask": torch.tensor([True, False, number == 0]),
            "steps": torch.tensor([number - 2**62, -number]),
            "double": torch.tensor([1e300, -0.0, float(number)], dtype=torch.float64),
            "half": torch.tensor([number / 3], dtype=torch.bfloat16),
            "odd": torch.arange(number, number + 3, dtype=torch.uint8),
        }
        for number in range(2)
    ]
    layout = Layout.of(states[0])
    base, blob = (layout.pack(state) for state in states)
    assert bytes(decode(memoryview(encode(blob.data, base.data)), base.data)) == bytes(blob.data)


def drift(size: int, step: float, still: float = 0.0) -> tuple[bytes, bytes]:
    """Weights, and the same after a step, of which a share did not change."""
    generator = np.random.default_rng(0)
    base = generator.standard_normal(size, np.float32) * np.float32(0.02)
    moved = generator.random(size) >= still
    data = base + generator.standard_normal(size, np.float32) * np.float32(step) * moved
    return data.astype(np.float32).tobytes(), base.tobytes()


@pytest.mark.parametrize(
    ("step", "still", "ratio"), [(1e-3, 0.0, 1.35), (1e-5, 0.0, 1.8), (1e-3, 0.6, 2.6), (0.0, 1.0, 1000)]
)
def test_small_changes_take_few_bytes(step: float, still: float, ratio: float) -> None:
    data, base = drift(400_000, step, still)
    encoded = encode(memoryview(data), memoryview(base))
    assert len(data) / len(encoded) > ratio
    assert bytes(decode(memoryview(encoded), memoryview(base))) == data


def test_blocks_join_without_gaps() -> None:
    for more in (-1, 0, 1, 3, 4, 5):
        data, base = drift(2 * delta._WORDS + 2, 1e-3)
        size = 4 * delta._WORDS + more
        assert restored(data[:size], base[:size]) == data[:size]


def test_what_gains_nothing_travels_as_it_is() -> None:
    generator = np.random.default_rng(1)
    blob, base = Blob.of(generator.bytes(4096)), Blob.of(generator.bytes(4096))
    assert shortest(blob, base) == (blob, None)
    assert shortest(blob, None) == (blob, None)
    near = Blob.of(bytes(base.data[:-1]) + b"x")
    sent, encoding = shortest(near, base)
    assert encoding is not None
    assert (encoding.digest, encoding.base) == (sent.digest, base.digest)
    assert sent.size < 200
    assert bytes(decode(sent.data, base.data)) == bytes(near.data)


def test_another_length_is_no_base() -> None:
    with pytest.raises(TensorMismatch, match="one of 7"):
        encode(memoryview(bytes(8)), memoryview(bytes(7)))
    encoded = memoryview(encode(memoryview(bytes(8)), memoryview(bytes(8))))
    with pytest.raises(TensorMismatch, match="of 12 bytes, received version 1 of 8"):
        decode(encoded, memoryview(bytes(12)))


CASES = [drift(300, 1e-3), drift(300, 1e-3, 0.5), drift(300, 0.0), (bytes(7), b"changed"), (b"", b"")]


@given(st.sampled_from(CASES), st.data())
def test_cut_or_lengthened_bytes_are_refused(pair: tuple[bytes, bytes], data: st.DataObject) -> None:
    base = memoryview(pair[1])
    whole = encode(memoryview(pair[0]), base)
    cut = data.draw(st.integers(0, len(whole) - 1))
    more = data.draw(st.binary(min_size=1, max_size=20))
    for wrong in (whole[:cut], whole + more):
        with pytest.raises(TensorMismatch) as caught:
            decode(memoryview(wrong), base)
        assert "\n" not in str(caught.value)


@given(st.sampled_from(CASES[:4]), st.data())
def test_flipped_bits_are_refused_or_mean_other_bytes(pair: tuple[bytes, bytes], data: st.DataObject) -> None:
    base = memoryview(pair[1])
    wrong = bytearray(encode(memoryview(pair[0]), base))
    for at in data.draw(st.lists(st.integers(0, 8 * len(wrong) - 1) | st.integers(0, 8 * 40), min_size=1, max_size=4)):
        wrong[at // 8 % len(wrong)] ^= 1 << at % 8
    try:
        assert len(decode(memoryview(wrong), base)) == len(base)
    except TensorMismatch:
        return


@pytest.mark.parametrize("part", range(5))
def test_claims_take_no_memory(part: int) -> None:
    """A frame that would grow to gigabytes, in any place of a block, is refused before anything is made."""
    base = memoryview(bytes(4096))
    bomb = zstd.compress(bytes(2**26), 1)
    ones = zstd.compress(b"\xff" * 128, 1)
    parts = [ones, *[zstd.compress(bytes(1024), 1)] * 4]
    parts[part] = bomb
    data = delta._HEADER.pack(delta._VERSION, 4096) + delta._LENGTHS.pack(*map(len, parts)) + b"".join(parts)
    tracemalloc.start()
    with pytest.raises(TensorMismatch):
        decode(memoryview(data), base)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_lengths_that_run_past_the_end_are_refused() -> None:
    data, base = drift(300, 1e-3)
    encoded = bytearray(encode(memoryview(data), memoryview(base)))
    delta._LENGTHS.pack_into(encoded, delta._HEADER.size, *[2**32 - 1] * 5)
    with pytest.raises(TensorMismatch):
        decode(memoryview(encoded), memoryview(base))
