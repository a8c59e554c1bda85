"""The safetensors layout of a model's state dict, known before any tensor is seen.

A contract fixes names, dtypes and shapes, so the header and the length of every blob of a session are known in advance:
a sender writes tensors straight to their places in one buffer, a receiver allocates exactly what it will need and
compares the header byte for byte. The bytes are those that `safetensors.torch.save` writes for the same state dict.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import safetensors.torch
import torch
from blake3 import blake3
from torch import Tensor

from comity.errors import NonFiniteValue, TensorMismatch
from comity.tensors.blob import Blob

_MEMORY = 64
"""Of which torch's tensors on the CPU begin at a multiple, in bytes."""

State = Mapping[str, Tensor]
"""A model's state dict: parameters and buffers by name."""

_CODES: dict[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""Codes of safetensors, in the order in which it ranks dtypes; a file holds the highest ranks first."""
_RANKS = {dtype: rank for rank, dtype in enumerate(_CODES)}
_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's place in the layout.

    Attributes:
        dtype: Element type.
        shape: Shape.
        begin: First byte, counted from the end of the header.
        end: Byte after the last.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Layout:
    """Where each tensor of a state dict stands in its blob.

    Attributes:
        tensors: Places by name, in the order in which they stand.
    """

    tensors: Mapping[str, TensorSpec]

    @classmethod
    def of(cls, state: State) -> Layout:
        """The layout of a state dict.

        Raises:
            TensorMismatch: A dtype has no place in a safetensors file.
        """
        for name, tensor in state.items():
            if tensor.dtype not in _CODES:
                raise TensorMismatch(
                    f"tensor {name} cannot be sent", expected=", ".join(_CODES.values()), received=tensor.dtype
                )
        places: dict[str, TensorSpec] = {}
        begin = 0
        for name in sorted(state, key=lambda name: (-_RANKS[state[name].dtype], name)):
            tensor = state[name]
            end = begin + tensor.numel() * tensor.element_size()
            places[name] = TensorSpec(tensor.dtype, tuple(tensor.shape), begin, end)
            begin = end
        return cls(places)

    @cached_property
    def header(self) -> bytes:
        """The eight bytes of length and the JSON that begin every blob of this layout."""
        entries = {
            name: {"dtype": _CODES[place.dtype], "shape": list(place.shape), "data_offsets": [place.begin, place.end]}
            for name, place in self.tensors.items()
        }
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        return _LENGTH.pack(len(text)) + text

    @cached_property
    def size(self) -> int:
        """Length of every blob of this layout, in bytes."""
        return len(self.header) + max((place.end for place in self.tensors.values()), default=0)

    @cached_property
    def signature(self) -> str:
        """BLAKE3 (hexadecimal) of the header: equal for equal names, dtypes and shapes."""
        return blake3(self.header).hexdigest()

    def pack(self, state: State) -> Blob:
        """Copies a state dict into a new blob.

        Args:
            state: A state dict of this layout, on any device.

        Raises:
            TensorMismatch: The state dict is of another layout.
        """
        self._require_same(state)
        # Fresh memory costs more than the copy into it: numpy's is not zeroed first, and comes in huge pages.
        buffer = np.empty(self.size, np.uint8).data
        buffer[: len(self.header)] = self.header
        for name, target in self.view(buffer).items():
            target.copy_(state[name].detach())
        return Blob(blake3(buffer, max_threads=blake3.AUTO).digest(), buffer)

    def digest(self, state: State) -> str:
        """Digest (hexadecimal) of the blob that `pack` would make, which is not made.

        Args:
            state: A state dict of this layout, on the CPU.
        """
        hasher = blake3(self.header, max_threads=blake3.AUTO)
        for name in self.tensors:
            tensor = state[name].detach().cpu().contiguous().reshape(-1)
            if tensor.numel():
                hasher.update(tensor.view(torch.uint8).numpy().data)
        return hasher.hexdigest()

    def view(self, data: bytearray | memoryview) -> dict[str, Tensor]:
        """The tensors in a blob's bytes, without a copy; writing to one writes to the blob."""
        start = len(self.header)
        tensors = {}
        for name, place in self.tensors.items():
            count = math.prod(place.shape)
            if count:
                flat = torch.frombuffer(data, dtype=place.dtype, count=count, offset=start + place.begin)
            else:
                flat = torch.empty(0, dtype=place.dtype)
            tensors[name] = flat.view(place.shape)
        return tensors

    @staticmethod
    def unpack(blob: Blob) -> dict[str, Tensor]:
        """The tensors in a blob that this node packed itself, whatever its layout."""
        return safetensors.torch.load(bytes(blob.data))

    def verify(self, blob: Blob) -> None:
        """Checks that a peer's blob holds exactly the tensors of this layout, with finite values.

        Raises:
            TensorMismatch: A name, a dtype, a shape or the order differs.
            NonFiniteValue: A value is NaN or infinite.
        """
        if blob.size != self.size or bytes(blob.data[: len(self.header)]) != self.header:
            raise _mismatch(self, blob)
        require_finite(self.view(blob.data))

    def _require_same(self, state: State) -> None:
        other = Layout.of(state)
        if other.tensors != self.tensors:
            raise _difference(self, {n: (_CODES[p.dtype], list(p.shape)) for n, p in other.tensors.items()})


def on_device(state: State, device: torch.device) -> dict[str, Tensor]:
    """A state's tensors on a device, each where torch itself would have put it, and in the order of a blob.

    A view of a blob lies wherever the blob's bytes do, and a module may hold a matrix by columns; on some processors the
    last bit of a product depends on either.
    """
    return {name: _aligned(tensor.to(device, non_blocking=True)) for name, tensor in state.items()}


def _aligned(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.device.type == "cpu" and tensor.data_ptr() % _MEMORY else tensor


def require_finite(state: State) -> None:
    """Checks every floating-point tensor of a state dict.

    Raises:
        NonFiniteValue: A value is NaN or infinite; names the tensor.
    """
    for name, tensor in state.items():
        # A NaN or an infinity stays in every sum, so a finite one decides, in the fastest pass over the values.
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum()):
            # Large finite values may add up to infinity; NaN propagates through aminmax.
            low, high = torch.aminmax(tensor)
            if not (torch.isfinite(low) and torch.isfinite(high)):
                received = "NaN" if torch.isnan(low) else "an infinite value"
                raise NonFiniteValue(
                    f"tensor {name} is not finite",
                    expected="finite values",
                    received=received,
                    action="train with a lower learning rate",
                )


def _mismatch(layout: Layout, blob: Blob) -> TensorMismatch:
    """Says how the header of a blob differs from the layout's."""
    expected = f"{len(layout.tensors)} tensors in safetensors layout, {layout.size} bytes"
    action = "send the state dict of the contract's model"
    if blob.size < _LENGTH.size:
        return TensorMismatch("the blob has no header", expected=expected, received=f"{blob.size} bytes", action=action)
    if bytes(blob.data[: len(layout.header)]) == layout.header:
        return TensorMismatch(
            "the blob has another length", expected=f"{layout.size} bytes", received=f"{blob.size} bytes", action=action
        )
    length = _LENGTH.unpack(blob.data[: _LENGTH.size])[0]
    if length > min(blob.size - _LENGTH.size, 2 * len(layout.header) + 4096):
        return TensorMismatch(
            "the blob's header is too long", expected=expected, received=f"{length} bytes of header", action=action
        )
    try:
        header = json.loads(bytes(blob.data[_LENGTH.size : _LENGTH.size + length]))
        tensors = {name: (entry["dtype"], entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return TensorMismatch(
            "the blob's header cannot be read", expected=expected, received="other bytes", action=action
        )
    return _difference(layout, tensors)


def _difference(layout: Layout, tensors: Mapping[str, tuple[object, object]]) -> TensorMismatch:
    """The first difference between a layout and what came, in the layout's order."""
    action = "send the state dict of the contract's model"
    for name, place in layout.tensors.items():
        expected = f"{_CODES[place.dtype]} {list(place.shape)}"
        if name not in tensors:
            return TensorMismatch(f"tensor {name} is missing", expected=expected, received="nothing", action=action)
        dtype, shape = tensors[name]
        if (dtype, shape) != (_CODES[place.dtype], list(place.shape)):
            return TensorMismatch(
                f"tensor {name} differs", expected=expected, received=f"{dtype} {shape}"[:200], action=action
            )
    extra = sorted(set(tensors) - set(layout.tensors))
    if extra:
        return TensorMismatch(
            "a tensor is not the model's",
            expected=f"{len(layout.tensors)} tensors",
            received=extra[0][:200],
            action=action,
        )
    return TensorMismatch(
        "tensors stand in another order", expected="the order of safetensors", received="another", action=action
    )
