"""Samples as people see them."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import torch
from blake3 import blake3
from PIL import Image
from torch import Tensor

from comity.data import Dataset

Shown = Literal["image", "text", "table"]
"""What a sample is to people: a picture, a text, or the numbers of a row by the names of their columns."""

_IMAGE_DIMENSIONS = 3


@dataclass(frozen=True, slots=True)
class View:
    """One sample.

    Attributes:
        kind: What it is.
        data: A PNG file, or a text in UTF-8; nothing for a row.
        row: The numbers of a row.
    """

    kind: Shown
    data: bytes = b""
    row: tuple[float, ...] = ()


def kind_of(data: Dataset) -> Shown:
    """What the samples of a data set are to people."""
    if data.texts:
        return "text"
    return "image" if len(data.input_shape) == _IMAGE_DIMENSIONS else "table"


def columns_of(data: Dataset) -> list[str]:
    """The names of a row's numbers."""
    count = 1
    for each in data.input_shape:
        count *= each
    return list(data.meaning.features) or [f"feature {number}" for number in range(1, count + 1)]


def view(data: Dataset, place: int) -> View:
    """The sample at a place."""
    kind = kind_of(data)
    if kind == "text":
        return View(kind, data.texts[place].encode())
    stored = data.inputs[torch.tensor([place])][0]
    return View(kind, picture(stored, data.scale)) if kind == "image" else View(kind, row=tuple(_row(stored)))


def picture(stored: Tensor, scale: float) -> bytes:
    """A stored picture as a PNG file.

    Args:
        stored: `[channels, height, width]`; of more than three channels, or of two, the first is shown.
        scale: What brings it into 0 to 1; what is outside is brought there by its least and greatest value.
    """
    values = stored.detach().cpu()
    if values.dtype != torch.uint8:
        values = values.to(torch.float32) * scale
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:
            values = (values - low) / max(high - low, 1e-12)
        values = (values * 255).round().to(torch.uint8)
    rgb = 3
    pixels = values.permute(1, 2, 0) if len(values) == rgb else values[0]
    file = BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(file, "PNG")
    return file.getvalue()


def digest_of(data: Dataset, place: int) -> str:
    """BLAKE3 of a stored sample, hexadecimal."""
    return digest_of_stored(data.inputs[torch.tensor([place])])


def digest_of_stored(stored: Tensor) -> str:
    """BLAKE3 of one sample as it is stored, `[1, ...]`, hexadecimal."""
    stored = stored.detach().cpu().contiguous()
    hasher = blake3(f"{stored.dtype} {list(stored.shape)}\0".encode())
    hasher.update(stored.flatten().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def _row(stored: Tensor) -> list[float]:
    return [float(each) for each in stored.flatten()]
