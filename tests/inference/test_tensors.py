"""Tensors of the Open Inference Protocol: both forms, every datatype, and what fits neither."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from google.protobuf.descriptor_pool import Default
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import MalformedMessage
from comity.inference.messages import POOL, message
from comity.inference.offers import Offer, TensorSpec
from comity.inference.tensors import DATATYPES, batch_of, datatype_of, from_raw, from_values, raw


@pytest.mark.parametrize("name", DATATYPES)
@given(st.integers(0, 5), st.integers(0, 2**31))
def test_raw_contents_come_back(name: str, rows: int, seed: int) -> None:
    dtype = DATATYPES[name].dtype
    values = torch.randint(0, 2, (rows, 3), generator=torch.Generator().manual_seed(seed)).to(dtype)
    back = from_raw(name, [rows, 3], raw(values))
    assert back.dtype == (dtype if rows else back.dtype)
    assert torch.equal(back.to(torch.float64), values.to(torch.float64))


@pytest.mark.parametrize("name", [name for name, each in DATATYPES.items() if each.contents])
def test_lists_of_numbers_are_taken_nested_or_flat(name: str) -> None:
    flat = from_values(name, [2, 2], [0, 1, 1, 0])
    assert torch.equal(flat, from_values(name, [2, 2], [[0, 1], [1, 0]]))
    assert flat.dtype == DATATYPES[name].dtype


@pytest.mark.parametrize(
    ("name", "shape", "values"),
    [
        ("FP16", [1], [1.0]),
        ("BYTES", [1], ["a"]),
        ("FP32", [2], [1.0]),
        ("FP32", [-1], []),
        ("FP32", [1], ["a"]),
        ("FP32", [1], None),
        ("FP32", [2], [[1.0], [1.0, 2.0]]),
        ("UINT8", [1], [256]),
        ("INT8", [1], [-129]),
        ("INT64", [1], [2**70]),
        ("FP32", [2**20, 2**20], []),
    ],
)
def test_lists_that_do_not_fit_are_refused(name: str, shape: list[int], values: Any) -> None:
    with pytest.raises(MalformedMessage):
        from_values(name, shape, values)


@pytest.mark.parametrize(("name", "shape", "data"), [("FP32", [1], b"abc"), ("BF16", [2], b"ab"), ("FP8", [1], b"a")])
def test_raw_contents_that_do_not_fit_are_refused(name: str, shape: list[int], data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        from_raw(name, shape, data)


@pytest.mark.parametrize("shape", [[0, 10**30], [0, 2**62, 2**62], [1] * 100_000, [-1], [2**40]])
def test_shapes_that_are_none_are_refused_before_a_tensor_is_made(shape: list[int]) -> None:
    for make in (lambda: from_raw("FP32", shape, b""), lambda: from_values("FP32", shape, [])):
        with pytest.raises(MalformedMessage, match="the shape"):
            make()


def test_an_offer_takes_its_own_shape() -> None:
    offer = Offer("s", TensorSpec("inputs", "uint8", (1, 2)), (), lambda *_: pytest.fail("nobody asks"))
    assert batch_of(offer, "inputs", torch.zeros(3, 1, 2)).shape == (3, 1, 2)
    assert datatype_of(offer.inputs) == "UINT8"
    for name, shape in (("x", (3, 1, 2)), ("inputs", (1, 2)), ("inputs", (3, 2, 1))):
        with pytest.raises(MalformedMessage):
            batch_of(offer, name, torch.zeros(*shape))


def test_the_messages_are_in_a_pool_of_their_own() -> None:
    """Another program's messages of the same names may be in the pool that generated code shares."""
    with pytest.raises(KeyError):
        Default().FindMessageTypeByName("inference.ModelInferRequest")
    assert POOL.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelInfer"]
    assert message("ModelInferRequest")(model_name="m").SerializeToString() == b"\n\x01m"
