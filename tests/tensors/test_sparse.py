"""Sparse vectors come back as they went, in few bytes, and a peer's bytes can do no harm."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from comity.errors import BlobError, InvalidValue, NonFiniteValue, TensorMismatch
from comity.tensors.sparse import decode, encode, largest_encoding

Sparse = tuple[Tensor, Tensor, int]


def drawn(size: int, kept: int, seed: int = 0, *, noise: bool = False) -> Sparse:
    """The largest of Gaussian values; or values of random bits at random places, which nothing can compress."""
    generator = np.random.default_rng(seed)
    if noise:
        places = np.sort(generator.choice(size, kept, replace=False))
        bits = generator.integers(0, 0x7F000000, kept, np.uint32) | generator.integers(0, 2, kept, np.uint32) << 31
        return torch.from_numpy(places), torch.from_numpy(bits.astype(np.uint32).view(np.float32)), size
    values = generator.standard_normal(size, np.float32)
    places = np.sort(np.argsort(-np.abs(values), kind="stable")[:kept])
    return torch.from_numpy(places), torch.from_numpy(values[places]), size


@st.composite
def sparse_vectors(draw: st.DrawFn) -> Sparse:
    size = draw(st.one_of(st.integers(1, 60), st.integers(61, 40_000)))
    kept = draw(st.one_of(st.integers(0, min(size, 40)), st.integers(max(size - 40, 0), size), st.integers(0, size)))
    return drawn(size, kept, draw(st.integers(0, 2**32)), noise=draw(st.booleans()))


def assert_same(sparse: Sparse, indices: Tensor, values: Tensor) -> None:
    assert (indices.dtype, values.dtype) == (torch.int64, torch.float32)
    assert torch.equal(indices, sparse[0])
    assert torch.equal(values.view(torch.int32), sparse[1].view(torch.int32))


@given(sparse_vectors())
def test_round_trip_and_never_longer_than_dense(sparse: Sparse) -> None:
    data = encode(*sparse)
    assert len(data) <= largest_encoding(sparse[2])
    assert largest_encoding(sparse[2]) - 4 * sparse[2] == 36
    assert_same(sparse, *decode(data, sparse[2]))


@pytest.mark.parametrize("size", [127, 128, 129, 2**14, 2**14 + 1, 2**21 + 1, 2**28 + 1, 2**32])
def test_gaps_of_every_length(size: int) -> None:
    indices = torch.tensor([0, size // 2, size - 2, size - 1])
    sparse = indices, torch.tensor([1.0, -0.0, 1e-45, -3e38]), size
    data = encode(*sparse)
    assert len(data) < 36 + 16 + 20
    assert_same(sparse, *decode(data, size))


@pytest.mark.parametrize("missing", [0, 1, 2, 5, 50, 500, 2000, 5000, 20_000, 100_000])
def test_what_cannot_be_compressed_is_never_longer_than_dense(missing: int) -> None:
    sparse = drawn(200_000, 200_000 - missing, noise=True)
    data = encode(*sparse)
    assert len(data) <= largest_encoding(200_000)
    assert_same(sparse, *decode(data, 200_000))


@pytest.mark.parametrize(("share", "bound"), [(0.01, 0.012), (0.05, 0.055), (0.2, 0.19), (0.5, 0.5), (0.95, 0.85)])
def test_the_largest_of_gaussian_values_take_few_bytes(share: float, bound: float) -> None:
    size = 200_000
    assert len(encode(*drawn(size, int(size * share)))) <= bound * 4 * size


def test_other_arguments_are_refused() -> None:
    ones = torch.ones(2)
    for indices, values, size in (
        (torch.tensor([0, 1]), ones, 0),
        (torch.tensor([0, 1]), ones, 2**32 + 1),
        (torch.tensor([0, 2]), ones, 2),
        (torch.tensor([-1, 1]), ones, 2),
        (torch.tensor([1, 0]), ones, 2),
        (torch.tensor([1, 1]), ones, 2),
        (torch.tensor([0]), ones, 2),
        (torch.tensor([[0, 1]]), ones[None], 2),
        (torch.tensor([0, 1], dtype=torch.int32), ones, 2),
        (torch.tensor([0, 1]), ones.double(), 2),
    ):
        with pytest.raises(InvalidValue):
            encode(indices, values, size)


CASES = [drawn(1000, kept, noise=noise) for kept in (0, 30, 500, 990, 1000) for noise in (False, True)]


@given(st.sampled_from(CASES), st.data())
def test_cut_or_lengthened_bytes_are_refused(sparse: Sparse, data: st.DataObject) -> None:
    whole = encode(*sparse)
    cut = data.draw(st.integers(0, len(whole) - 1))
    more = data.draw(st.binary(min_size=1, max_size=20))
    for wrong in (whole[:cut], whole + more):
        with pytest.raises(BlobError) as caught:
            decode(wrong, 1000)
        assert "\n" not in str(caught.value)


@given(st.sampled_from(CASES), st.data())
def test_flipped_bits_are_refused_or_mean_another_vector(sparse: Sparse, data: st.DataObject) -> None:
    wrong = bytearray(encode(*sparse))
    # Half of them in the header and just after, where the most depends on each.
    for at in data.draw(st.lists(st.integers(0, 8 * len(wrong) - 1) | st.integers(0, 8 * 60), min_size=1, max_size=4)):
        wrong[at // 8 % len(wrong)] ^= 1 << at % 8
    try:
        indices, values = decode(wrong, 1000)
    except (TensorMismatch, NonFiniteValue):
        return
    assert_a_sparse_vector(indices, values, 1000)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_mean_a_vector(noise: bytes) -> None:
    header = encode(torch.tensor([3]), torch.tensor([1.0]), 50)[:4]
    for data in (noise, header + noise):
        try:
            indices, values = decode(data, 50)
        except (TensorMismatch, NonFiniteValue):
            continue
        assert_a_sparse_vector(indices, values, 50)


def assert_a_sparse_vector(indices: Tensor, values: Tensor, size: int) -> None:
    assert len(indices) == len(values) <= size
    assert bool((indices.diff() > 0).all())
    assert bool(((indices >= 0) & (indices < size)).all())
    assert bool(torch.isfinite(values).all())


def test_a_vector_of_another_size_is_refused() -> None:
    data = encode(*drawn(1000, 30))
    with pytest.raises(TensorMismatch, match="entries of 999, received 30 entries of 1000"):
        decode(data, 999)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    data = encode(torch.tensor([1, 2]), torch.tensor([1.0, value]), 100)
    with pytest.raises(NonFiniteValue):
        decode(data, 100)


def test_claims_take_no_memory() -> None:
    """Frames that would grow to gigabytes, and a header that claims as much, are refused before anything is made."""
    from comity.tensors import sparse  # noqa: PLC0415

    bomb = zstd.compress(bytes(2**26), 1)
    genuine = encode(*drawn(1000, 30))
    header = list(sparse._HEADER.unpack_from(genuine))
    for changed in ({6: len(bomb), 2: 3}, {5: 2**62}, {4: 2**62, 3: 2**62}, {5: 2**63 + 5, 6: 2**63}):
        fields = [changed.get(at, field) for at, field in enumerate(header)]
        data = sparse._HEADER.pack(*fields) + bomb
        tracemalloc.start()
        with pytest.raises(TensorMismatch):
            decode(data, 1000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20
