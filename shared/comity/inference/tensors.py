"""Tensors as the protocol has them: raw bytes in the order of their elements, or lists of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comity.errors import MalformedMessage
from comity.inference.offers import Offer, TensorSpec

_MOST_VALUES = 2**28
_MOST_DIMENSIONS = 64


@dataclass(frozen=True)
class Datatype:
    """One of the protocol's types.

    Attributes:
        dtype: What it is in torch.
        contents: The field of typed contents that has its values; empty for those that are raw only.
    """

    dtype: torch.dtype
    contents: str = ""


DATATYPES = {
    "BOOL": Datatype(torch.bool, "bool_contents"),
    "UINT8": Datatype(torch.uint8, "uint_contents"),
    "UINT16": Datatype(torch.uint16, "uint_contents"),
    "UINT32": Datatype(torch.uint32, "uint_contents"),
    "UINT64": Datatype(torch.uint64, "uint64_contents"),
    "INT8": Datatype(torch.int8, "int_contents"),
    "INT16": Datatype(torch.int16, "int_contents"),
    "INT32": Datatype(torch.int32, "int_contents"),
    "INT64": Datatype(torch.int64, "int64_contents"),
    "FP16": Datatype(torch.float16),
    "BF16": Datatype(torch.bfloat16),
    "FP32": Datatype(torch.float32, "fp32_contents"),
    "FP64": Datatype(torch.float64, "fp64_contents"),
}
_NAMES = {each.dtype: name for name, each in DATATYPES.items()}


def datatype_of(spec: TensorSpec) -> str:
    """What the protocol calls a tensor's type."""
    return _NAMES[getattr(torch, spec.dtype or "float32")]


def raw(tensor: Tensor) -> bytes:
    """A tensor's elements, little-endian."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def from_raw(name: str, shape: Sequence[int], data: bytes) -> Tensor:
    """The tensor of raw contents.

    Raises:
        MalformedMessage: They are not those of the type and the shape.
    """
    kind, size = _checked(name, shape)
    wanted = size * kind.dtype.itemsize
    if len(data) != wanted:
        raise MalformedMessage(
            "raw contents of another length",
            expected=f"{wanted} bytes for {name} of shape {list(shape)}",
            received=f"{len(data)} bytes",
        )
    return torch.frombuffer(bytearray(data), dtype=kind.dtype).view(*shape) if size else torch.empty(*shape)


def from_values(name: str, shape: Sequence[int], values: Any) -> Tensor:
    """The tensor of a list of numbers, nested or flat.

    Raises:
        MalformedMessage: They are not those of the type and the shape.
    """
    kind, size = _checked(name, shape)
    if not kind.contents:
        raise MalformedMessage(f"contents of type {name}", expected="raw contents", received="a list of numbers")
    try:
        tensor = torch.tensor(values, dtype=torch.float64 if kind.dtype.is_floating_point else torch.int64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise MalformedMessage("contents that are no numbers", expected=name, received=str(error)[:200]) from error
    if tensor.numel() != size:
        raise MalformedMessage(
            "contents of another length", expected=f"{size} values, for shape {list(shape)}", received=tensor.numel()
        )
    if not kind.dtype.is_floating_point and kind.dtype != torch.int64 and size:
        limits = torch.iinfo(torch.uint8) if kind.dtype == torch.bool else torch.iinfo(kind.dtype)
        least, greatest = int(tensor.min()), int(tensor.max())
        if least < limits.min or (greatest > limits.max and limits.max < 2**63):
            raise MalformedMessage(
                f"contents beyond {name}", expected=f"{limits.min} to {limits.max}", received=(least, greatest)
            )
    return tensor.to(kind.dtype).view(*shape)


def batch_of(offer: Offer, name: str, tensor: Tensor) -> Tensor:
    """A request's tensor as an offer takes it.

    Raises:
        MalformedMessage: It is another, or of another shape.
    """
    spec = offer.inputs
    if name != spec.name:
        raise MalformedMessage("an input of another name", expected=spec.name, received=name[:200])
    if tensor.ndim != len(spec.shape) + 1 or tuple(tensor.shape[1:]) != spec.shape:
        raise MalformedMessage(
            f"{spec.name} of another shape",
            expected=f"[batch, {', '.join(map(str, spec.shape))}]",
            received=[*tensor.shape],
        )
    return tensor


def _checked(name: str, shape: Sequence[int]) -> tuple[Datatype, int]:
    kind = DATATYPES.get(name)
    if kind is None:
        raise MalformedMessage("the datatype", expected=", ".join(DATATYPES), received=name[:100])
    is_one = len(shape) <= _MOST_DIMENSIONS and all(0 <= each <= _MOST_VALUES for each in shape)
    if not is_one or math.prod(shape) > _MOST_VALUES:
        expected = f"at most {_MOST_DIMENSIONS} dimensions, of 0 or more"
        raise MalformedMessage("the shape", expected=expected, received=[*shape][:8])
    return kind, math.prod(shape)
