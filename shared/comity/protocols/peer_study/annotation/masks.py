"""Masks: the class of every pixel, as indexed PNG; what people say of a picture where a class is not enough."""

from __future__ import annotations

import base64
import binascii
import colorsys
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from comity.errors import InvalidValue
from comity.protocols.peer_study.choices import IGNORED, Difference

Pixels = NDArray[np.uint8]

_GOLDEN = 0.618034


def encoded(mask: Pixels) -> str:
    """A mask in text, the same for the same mask: an indexed PNG, base64."""
    return base64.b64encode(indexed(mask)).decode()


def indexed(mask: Pixels) -> bytes:
    """A mask as indexed PNG: the index of a pixel is the number of its class, `IGNORED` where it does not count."""
    image = Image.fromarray(np.ascontiguousarray(mask), mode="L").convert("P")
    image.putdata(mask.flatten().tolist())
    image.putpalette(_palette())
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def pixels(text: str) -> Pixels:
    """The classes of a mask that was checked before."""
    with Image.open(BytesIO(base64.b64decode(text)), formats=["PNG"]) as image:
        return np.array(image, dtype=np.uint8)


def merged(masks: Sequence[str], rule: Difference) -> str | None:
    """What counts of several people's masks of one picture, pixel by pixel.

    Args:
        masks: Of one size, checked before.
        rule: `majority`: of each pixel what most said; `leave_out`: what all said. Where there is no such class the pixel
            does not count. `first`: the first mask.

    Returns:
        None where no pixel counts.
    """
    if rule == "first":
        return masks[0]
    said = np.stack([pixels(each) for each in masks])
    classes = np.unique(said)
    votes = np.stack([(said == each).sum(axis=0) for each in classes])
    most = votes.max(axis=0)
    is_agreed = most == len(masks) if rule == "leave_out" else (votes == most).sum(axis=0) == 1
    mask = np.where(is_agreed, classes[votes.argmax(axis=0)], IGNORED).astype(np.uint8)
    return encoded(mask) if bool((mask != IGNORED).any()) else None


def checked(text: Any, size: tuple[int, int], classes: int, sample: str) -> str:
    """A mask that somebody made, as it is kept.

    Args:
        text: An indexed or a grey PNG of 8 bits, base64.
        size: Height and width of the picture.
        classes: How many there are.
        sample: Of which sample, for errors.

    Raises:
        InvalidValue: It is none, has another size, or says nothing.
    """
    try:
        with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
            if image.mode not in {"P", "L"} or (image.height, image.width) != size:
                raise _no_mask(sample, size, f"mode {image.mode}, {image.height}x{image.width}")
            mask = np.array(image, dtype=np.uint8)
    except InvalidValue:
        raise
    except (binascii.Error, OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
        raise _no_mask(sample, size, f"{error}"[:100]) from error
    counted = mask[mask != IGNORED]
    if not counted.size:
        raise InvalidValue(
            f"the mask of sample {sample} says nothing",
            expected="a class at some pixel",
            received=f"{IGNORED} at all of them",
            action="label pixels, or skip the sample",
        )
    if int(counted.max()) >= classes:
        raise InvalidValue(
            f"the mask of sample {sample} has a pixel that is no class",
            expected=f"0 to {classes - 1}, or {IGNORED} for pixels that do not count",
            received=int(counted.max()),
            action="correct it; classes.csv has the numbers",
        )
    return encoded(mask)


def _no_mask(sample: str, size: tuple[int, int], received: str) -> InvalidValue:
    return InvalidValue(
        f"the mask of sample {sample} cannot be read",
        expected=f"an indexed or grey PNG of 8 bits, {size[0]}x{size[1]}",
        received=received,
        action="save it without colours of its own, in the picture's size",
    )


def _palette() -> list[int]:
    """Colours that neighbours in number differ in; white for what does not count."""
    colours = [colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, 0.85) for number in range(IGNORED)]
    return [round(255 * each) for colour in (*colours, (1.0, 1.0, 1.0)) for each in colour]
