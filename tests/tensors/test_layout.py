"""A layout writes the bytes that safetensors writes, and takes no others from a peer."""

from __future__ import annotations

import json
import math
import struct

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from comity import tensors
from comity.errors import NonFiniteValue, TensorMismatch
from comity.tensors import Blob, Layout, require_finite

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.float32,
    torch.float64,
    torch.int64,
]
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 4), max_size=4)


@st.composite
def states(draw: st.DrawFn) -> dict[str, Tensor]:
    def tensor() -> Tensor:
        shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
        return (torch.arange(math.prod(shape)) - draw(st.integers(0, 9))).view(shape).to(dtype)

    return {name: tensor() for name in draw(st.lists(names, max_size=6, unique=True))}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


@given(states())
def test_blobs_are_the_bytes_of_safetensors(state: dict[str, Tensor]) -> None:
    layout = Layout.of(state)
    blob = layout.pack(state)
    assert bytes(blob.data) == safetensors.torch.save(state)
    assert blob.size == layout.size


@given(states())
def test_states_come_back_by_view_and_by_safetensors(state: dict[str, Tensor]) -> None:
    layout = Layout.of(state)
    blob = layout.pack(state)
    layout.verify(blob)
    assert same(layout.view(blob.data), state)
    assert same(safetensors.torch.load(bytes(blob.data)), state)


@given(states(), states())
def test_signatures_are_equal_for_equal_names_dtypes_and_shapes_alone(
    one: dict[str, Tensor], other: dict[str, Tensor]
) -> None:
    def description(state: dict[str, Tensor]) -> object:
        return {name: (tensor.dtype, tensor.shape) for name, tensor in state.items()}

    for first, second in [(one, other), (one, dict(reversed(one.items())))]:
        alike = description(first) == description(second)
        assert (Layout.of(first).signature == Layout.of(second).signature) == alike


def test_packing_copies_and_viewing_does_not() -> None:
    model = nn.BatchNorm1d(3)
    layout = Layout.of(model.state_dict())
    blob = layout.pack(model.state_dict())
    before = blob.digest
    with torch.no_grad():
        model.weight.zero_()
    assert Blob.of(blob.data).digest == before
    view = layout.view(blob.data)
    view["weight"].zero_()
    assert Blob.of(blob.data).digest != before


def test_tensors_need_not_lie_in_one_piece() -> None:
    state = {"w": torch.arange(12.0).view(3, 4).t()}
    assert same(safetensors.torch.load(bytes(Layout.of(state).pack(state).data)), state)


def test_a_dtype_without_a_code_cannot_be_sent() -> None:
    with pytest.raises(TensorMismatch, match=r"tensor w cannot be sent.*complex64"):
        Layout.of({"w": torch.zeros(1, dtype=torch.complex64)})


@pytest.mark.parametrize("state", [{"w": torch.zeros(3)}, {"w": torch.zeros(2), "b": torch.zeros(1)}, {}])
def test_packing_another_layout_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(TensorMismatch):
        Layout.of({"w": torch.zeros(2)}).pack(state)


STATE = {"weight": torch.ones(2, 3), "bias": torch.zeros(3), "count": torch.tensor(4)}


def saved(**changes: Tensor | None) -> bytes:
    """The file of the state with tensors replaced, added, or (by None) left out."""
    state = STATE | changes
    return safetensors.torch.save({name: tensor for name, tensor in state.items() if tensor is not None})


def with_header(text: bytes) -> bytes:
    """A file of the right length with another header."""
    size = Layout.of(STATE).size
    data = struct.pack("<Q", len(text)) + text
    return data + bytes(max(0, size - len(data)))


def header_of(data: bytes) -> bytes:
    return data[8 : 8 + struct.unpack("<Q", data[:8])[0]]


def swapped() -> bytes:
    """The right tensors, two of them in each other's place."""
    header = json.loads(header_of(saved()))
    header["bias"]["data_offsets"], header["weight"]["data_offsets"] = [24, 36], [0, 24]
    return with_header(json.dumps(header, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (saved(weight=torch.ones(2, 3, dtype=torch.float64)), "tensor weight differs: expected F32 .* received F64"),
        (saved(weight=torch.ones(2, 3, dtype=torch.int32)), "tensor weight differs: expected F32 .* received I32"),
        (saved(weight=torch.ones(3, 2)), r"tensor weight differs: expected F32 \[2, 3\], received F32 \[3, 2\]"),
        (saved(weight=torch.ones(6)), "tensor weight differs"),
        (saved(bias=None), "tensor bias is missing"),
        (saved(other=torch.ones(1)), "not the model's.* received other"),
        (saved(bias=None, bais=torch.zeros(3)), "tensor bias is missing"),
        (saved()[:-1], "length"),
        (saved() + b"\0", "length"),
        (saved()[:20], "too long"),
        (saved()[:4], "no header"),
        (b"", "no header"),
        (swapped(), "another order"),
        (with_header(b"x" * 100), "cannot be read"),
        (with_header(b"\xff" * 100), "cannot be read"),
        (with_header(b"[]"), "cannot be read"),
        (with_header(b'{"weight":[]}'), "cannot be read"),
        (with_header(b'{"weight":{"dtype":"F32"}}'), "cannot be read"),
        (with_header(b"[" * 200), "cannot be read"),
        (struct.pack("<Q", 2**63) + bytes(200), "too long"),
        (struct.pack("<Q", 2**64 - 1) + bytes(200), "too long"),
        (struct.pack("<Q", 300) + bytes(200), "too long"),
    ],
)
def test_other_tensors_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(TensorMismatch, match=message) as caught:
        Layout.of(STATE).verify(Blob.of(bytearray(data)))
    assert len(str(caught.value)) < 600


def test_headers_are_compared_to_the_last_byte() -> None:
    spaced = header_of(saved()).replace(b'"dtype":"F32"', b'"dtype": "F32"', 1).rstrip() + b" " * 8
    with pytest.raises(TensorMismatch):
        Layout.of(STATE).verify(Blob.of(bytearray(with_header(spaced[: len(header_of(saved()))]))))


@given(st.binary(max_size=300))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    for each in (data, with_header(data[:180])):
        with pytest.raises(TensorMismatch):
            Layout.of(STATE).verify(Blob.of(bytearray(each)))


@pytest.mark.parametrize("dtype", [each for each in DTYPES if each.is_floating_point])
@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite")])
@pytest.mark.parametrize("place", [0, -1])
def test_values_that_are_not_finite_are_refused(dtype: torch.dtype, value: float, word: str, place: int) -> None:
    state = {"bias": torch.zeros(2), "empty": torch.zeros(0), "weight": torch.zeros(5, dtype=dtype)}
    layout = Layout.of(state)
    blob = layout.pack(state)
    layout.verify(blob)
    layout.view(blob.data)["weight"][place] = value
    with pytest.raises(NonFiniteValue, match=f"tensor weight is not finite.*{word}"):
        layout.verify(blob)


def test_require_finite_looks_at_every_value() -> None:
    tensor = torch.zeros(4, 3)
    require_finite({"w": tensor, "t": tensor.t()})
    for place in range(tensor.numel()):
        spoiled = tensor.clone()
        spoiled.view(-1)[place] = math.nan
        for each in (spoiled, spoiled.t()):
            with pytest.raises(NonFiniteValue):
                require_finite({"w": each})


def test_exports_are_exact() -> None:
    assert sorted(tensors.__all__) == ["Blob", "Layout", "State", "on_device", "require_finite"]
