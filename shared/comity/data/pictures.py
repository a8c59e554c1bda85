"""Pictures as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from comity.errors import InvalidValue, MissingFile

Pixels = NDArray[Any]

_FORMATS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
_DICOM = ".dcm"
SUFFIXES = frozenset({*_FORMATS, _DICOM})
"""What files of pictures end with."""

_LOOKED_AT = 64
"""Pictures whose form is looked at before all are read."""
_FULL = 65535.0
"""The largest value of 16 bits."""


@dataclass(frozen=True, slots=True)
class Form:
    """What pictures are brought to.

    Attributes:
        channels: 1 for grey, 3 for red, green and blue.
        is_deep: Whether they have more than 8 bits a channel, and become floats from 0 to 1.
    """

    channels: int
    is_deep: bool


def form_of(paths: Sequence[Path]) -> Form:
    """The form of a set of pictures, by some of them that are spread over it: grey and deep where all are.

    Raises:
        InvalidValue: One cannot be read, or some have more than 8 bits a channel and others have not.
    """
    some = paths[:: max(1, len(paths) // _LOOKED_AT)]
    forms = [_form(path) for path in some]
    deep = {each.is_deep for each in forms}
    if len(deep) > 1:
        odd = next(path for path, each in zip(some, forms, strict=True) if each.is_deep != forms[0].is_deep)
        raise InvalidValue(
            f"{odd} has another depth than the images before it",
            expected="8 bits a channel in all images, or more in all",
            received="both",
            action="convert them alike",
        )
    return Form(max(each.channels for each in forms), deep.pop())


def decode(path: Path, form: Form, image_size: int | None) -> Pixels:
    """One picture as `[channels, height, width]`, uint8 or float32 from 0 to 1; with a size, its central square.

    Raises:
        InvalidValue: It cannot be read, or has more than 8 bits where the others have not.
    """
    if path.suffix.lower() == _DICOM:
        return _sized(_of_dicom(path, form), image_size)
    try:
        with _opened(path) as image:
            _require_form(path, image, form)
            if form.is_deep:
                values = np.asarray(ImageOps.exif_transpose(image), dtype=np.float32)[None]
                scaled = values if image.mode == "F" else values / _FULL
                return _sized(np.repeat(scaled, form.channels, axis=0), image_size)
            if image_size is not None:
                # A large JPEG is decoded at the least of its own reduced sizes that still covers what is wanted.
                image.draft("L" if form.channels == 1 else "RGB", (image_size, image_size))
            turned = ImageOps.exif_transpose(image).convert("L" if form.channels == 1 else "RGB")
            if image_size is not None:
                turned = ImageOps.fit(turned, (image_size, image_size), Image.Resampling.BILINEAR)
            pixels = np.asarray(turned)
            return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)
    except InvalidValue:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        # A pipe would be waited for.
        raise InvalidValue(f"{path} is no file", expected="an image", received="something else", action="remove it")


def _opened(path: Path) -> Image.Image:
    _require_file(path)
    return Image.open(path, formats=[_FORMATS[path.suffix.lower()], *sorted({*_FORMATS.values()})])


def _form(path: Path) -> Form:
    if path.suffix.lower() == _DICOM:
        return Form(1, is_deep=True)
    try:
        with _opened(path) as image:
            grey = image.mode in {"1", "L", "LA", "F"} or image.mode.startswith("I")
            return Form(1 if grey else 3, _is_deep(image))
    except InvalidValue:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _require_form(path: Path, image: Image.Image, form: Form) -> None:
    if _is_deep(image) != form.is_deep:
        raise InvalidValue(
            f"{path}",
            expected=f"{'more than ' if form.is_deep else ''}8 bits a channel, as the images before it",
            received=f"mode {image.mode}",
            action="convert it",
        )


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _sized(values: Pixels, image_size: int | None) -> Pixels:
    """Floats, the central square brought to a size where one is wanted."""
    if image_size is None:
        return values
    channels = [
        np.asarray(ImageOps.fit(Image.fromarray(each, mode="F"), (image_size, image_size), Image.Resampling.BILINEAR))
        for each in values
    ]
    return np.stack(channels)


def _of_dicom(path: Path, form: Form) -> Pixels:
    """A DICOM picture: rescaled as it says, from 0 to 1 over what its bits can say."""
    try:
        import pydicom  # noqa: PLC0415 - an extra
        from pydicom import config  # noqa: PLC0415
        from pydicom.pixels.processing import apply_modality_lut  # noqa: PLC0415
    except ImportError as error:
        raise MissingFile(
            f"{path} cannot be read",
            expected="pydicom",
            received="none installed",
            action="pip install 'comity[dicom]'",
        ) from error
    _require_file(path)
    # Values that the standard does not allow are common, and no concern of ours but in the few that are used.
    config.settings.reading_validation_mode = config.IGNORE
    try:
        # From memory: a file gives pydicom a buffer for what a damaged one claims to hold, up to 4 GB.
        found = pydicom.dcmread(BytesIO(path.read_bytes()))
        stored = _one_grey(found.pixel_array)
        bits, signed = int(found.BitsStored), int(found.get("PixelRepresentation", 0))
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        ends = apply_modality_lut(np.array([low, high], dtype=stored.dtype), found).astype(np.float64)
        values = apply_modality_lut(stored, found).astype(np.float64)
        scaled = (values - ends.min()) / max(float(ends.max() - ends.min()), 1e-12)
        if found.get("PhotometricInterpretation") == "MONOCHROME1":
            # White is the lowest there.
            scaled = 1 - scaled
        return np.repeat(scaled.astype(np.float32)[None], form.channels, axis=0)
    except Exception as error:
        raise _unreadable(path, error) from error


def _one_grey(stored: Pixels) -> Pixels:
    if stored.ndim != 2:
        raise ValueError(f"one grey picture, not {list(stored.shape)}")
    return stored


def _unreadable(path: Path, error: Exception) -> InvalidValue:
    """The error for a picture that its library does not read: what a damaged one comes to there, no list of errors names."""
    return InvalidValue(
        f"{path} is not an image that can be read: {' '.join(str(error).split())[:300]}", action="repair or remove it"
    )
