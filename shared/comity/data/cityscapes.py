"""Cityscapes (Cordts et al. 2016) as its two archives unpack: streets, and what each pixel shows.

    <dir>/leftImg8bit/{train,val}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    <dir>/gtFine/{train,val}/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png

The classes are the 19 that are evaluated; pixels of the others do not count. The set's validation split is what papers test
on, since labels of its test split are not given out: it is the split `test` here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import torch
from blake3 import blake3
from PIL import Image
from torch import Tensor

from comity.data.dataset import Dataset, Splits
from comity.data.meaning import Meaning
from comity.data.pictures import Pixels
from comity.data.reading import ReadInputs
from comity.data.sources import Request
from comity.errors import InvalidValue, MissingFile

CLASSES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""The classes that are evaluated, by the number that they have in the set's files, in the order of their own numbers."""

_IGNORED = 255
_PICTURE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"
_NUMBERS = np.full(256, _IGNORED, dtype=np.uint8)
_NUMBERS[[*CLASSES]] = np.arange(len(CLASSES))

Pair = tuple[Path, Path]
"""A picture, and its mask."""


def load(request: Request) -> Splits:
    """uint8 RGB `[samples, 3, height, width]`, masks uint8 `[samples, height, width]`.

    With an `image_size` pictures are brought to that height and twice that width, as theirs is; masks by the nearest pixel.

    Raises:
        MissingFile: A folder, or a picture's mask, is not there.
        InvalidValue: There is no picture, one cannot be read, or has another size than the ones before it.
    """
    return Splits(_split(request, "train"), _split(request, "val"))


def _split(request: Request, part: str) -> Dataset:
    pictures, masks = request.path / "leftImg8bit" / part, request.path / "gtFine" / part
    for folder in (pictures, masks):
        if not folder.is_dir():
            raise MissingFile(
                "A split of Cityscapes",
                expected="<dir>/leftImg8bit/{train,val}/<city> and <dir>/gtFine/{train,val}/<city>",
                received=f"no folder {folder}",
                action="unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip there",
            )
    pairs = [
        (path, masks / path.parent.name / (path.name.removesuffix(_PICTURE) + _MASK))
        for path in sorted(pictures.glob(f"*/*{_PICTURE}"))
    ]
    if not pairs:
        raise InvalidValue(f"{pictures} holds no picture", expected=f"<city>/*{_PICTURE}", received="none")
    if lacking := [mask for _, mask in pairs if not mask.is_file()]:
        raise MissingFile(
            "A mask of Cityscapes",
            expected=f"one for each picture, {len(pairs)}",
            received=f"no {lacking[0]}",
            action="unpack gtFine_trainvaltest.zip beside the pictures",
        )
    size = None if request.image_size is None else (2 * request.image_size, request.image_size)
    first = _picture(pairs[0][0], size)

    def read(places: Sequence[int]) -> Tensor:
        return torch.from_numpy(_all([pairs[place][0] for place in places], size, first.shape))

    every = range(len(pairs))
    stamp = blake3("\n".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path, _ in pairs).encode())
    inputs: Tensor | ReadInputs = (
        read(every)
        if request.in_memory
        else ReadInputs(read, torch.arange(len(pairs)), torch.from_numpy(first.copy()), stamp.hexdigest())
    )
    found = _all([mask for _, mask in pairs], size, first.shape[1:])
    return Dataset(
        cast(Tensor, inputs),
        torch.from_numpy(found),
        scale=1 / 255,
        classes=len(CLASSES),
        task="segmentation",
        ids=tuple(f"{path.parent.name}/{path.name.removesuffix(_PICTURE)}" for path, _ in pairs),
        meaning=Meaning(labels=tuple(CLASSES.values())),
    )


def _all(paths: Sequence[Path], size: tuple[int, int] | None, shape: tuple[int, ...]) -> Pixels:
    """Pictures or masks, decoded by as many threads as there are processors."""
    is_mask = len(shape) == 2
    filled = np.empty((len(paths), *shape), dtype=np.uint8)

    def fill(place: int) -> None:
        found = _mask(paths[place], size) if is_mask else _picture(paths[place], size)
        if found.shape != shape:
            raise InvalidValue(
                f"{paths[place]} has another size than the pictures before it",
                expected="x".join(map(str, shape[-2:])),
                received="x".join(map(str, found.shape[-2:])),
                action="set `image_size`",
            )
        filled[place] = found

    with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1) or 1) as pool:
        for _ in pool.map(fill, range(len(paths))):
            pass
    return filled


def _picture(path: Path, size: tuple[int, int] | None) -> Pixels:
    pixels = _decoded(path, "RGB", size, Image.Resampling.BILINEAR)
    return pixels.transpose(2, 0, 1)


def _mask(path: Path, size: tuple[int, int] | None) -> Pixels:
    """The numbers of the classes, of a file with the set's own."""
    found = _decoded(path, None, size, Image.Resampling.NEAREST)
    if found.ndim != 2 or found.dtype != np.uint8:
        raise InvalidValue(
            f"{path} is no mask",
            expected="8 bits a pixel, a class each",
            received=f"{found.dtype} {list(found.shape)}",
            action="unpack gtFine_trainvaltest.zip again",
        )
    numbers: Pixels = _NUMBERS[found]
    return numbers


def _decoded(path: Path, mode: str | None, size: tuple[int, int] | None, way: Image.Resampling) -> Pixels:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            found = image if mode is None else image.convert(mode)
            return np.asarray(found if size is None else found.resize(size, way))
    except Exception as error:
        raise InvalidValue(f"{path} cannot be read", expected="a PNG file", received=str(error)[:200]) from error
