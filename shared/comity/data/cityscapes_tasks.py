"""Cityscapes as several tasks at once: what each pixel shows, which part of that, and how near it is.

Beside what `cityscapes` reads, of two further archives of the set:

    <dir>/gtFinePanopticParts/{train,val}/<city>/<city>_<sequence>_<frame>_gtFinePanopticParts.tif  (de Geus et al. 2021)
    <dir>/disparity/{train,val}/<city>/<city>_<sequence>_<frame>_disparity.png

The parts are those of people (torso, head, arms, legs) and of cars, trucks and buses (windows, wheels, lights, license plate,
chassis), and a class for all that has none. The disparity, the inverse of the depth, is in pixels of the pictures as they are
in the archive, and is unknown where the camera did not find it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from comity.contract import HeadSpec
from comity.data import cityscapes
from comity.data.dataset import Dataset, Splits
from comity.data.meaning import Meaning
from comity.data.sources import Request
from comity.data.targets import SEVERAL
from comity.errors import InvalidValue, MissingFile

PARTS = (
    "no part",
    "torso",
    "head",
    "arms",
    "legs",
    "windows",
    "wheels",
    "lights",
    "license plate",
    "chassis",
)
"""The classes of parts, in the order of their numbers."""
_PEOPLE, _VEHICLES = (24, 25), (26, 27, 28)
_PARTS, _DISPARITY = "_gtFinePanopticParts.tif", "_disparity.png"

Array = np.ndarray[Any, np.dtype[Any]]


def load(request: Request) -> Splits:
    """As `cityscapes`, with heads `mask`, `part`, both uint8, and `disparity`, float32 with NaN where it is unknown.

    Raises:
        MissingFile: A folder or a file is not there.
        InvalidValue: See `cityscapes`.
    """
    plain = cityscapes.load(request)
    train = _with_more(request, plain.train, "train")
    if plain.test is None:
        return Splits(train)
    return Splits(train, _with_more(request, plain.test, "val", train.heads))


def _with_more(request: Request, plain: Dataset, split: str, heads: tuple[HeadSpec, ...] = ()) -> Dataset:
    """A split with its other targets; its disparity is scaled as that of the split to train on."""
    size = (plain.input_shape[1], plain.input_shape[2])
    files = {kind: [request.path / kind / split / f"{name}{end}" for name in plain.ids] for kind, end in _FILES.items()}
    for kind, paths in files.items():
        if lacking := [path for path in paths if not path.is_file()]:
            raise MissingFile(
                f"A file of {kind} of Cityscapes",
                expected=f"one for each picture, {len(paths)}",
                received=f"no {lacking[0]}",
                action=f"unpack the set's archive {kind}_trainvaltest.zip beside the pictures",
            )
    with ThreadPoolExecutor(min(len(plain), os.cpu_count() or 1) or 1) as pool:
        parts = torch.from_numpy(np.stack([*pool.map(lambda path: _part(path, size), files["gtFinePanopticParts"])]))
        disparity = torch.from_numpy(np.stack([*pool.map(lambda path: _disparity(path, size), files["disparity"])]))
    return replace(
        plain,
        task=SEVERAL,
        heads=heads or _heads(plain.classes, disparity),
        more={"part": parts, "disparity": disparity.unsqueeze(1)},
        meaning=Meaning(),
    )


_FILES = {"gtFinePanopticParts": _PARTS, "disparity": _DISPARITY}


def _heads(classes: int, disparity: Tensor) -> tuple[HeadSpec, ...]:
    known = disparity[disparity.isfinite()].double()
    mean, std = (float(known.mean()), float(known.std())) if len(known) > 1 else (0.0, 1.0)
    return (
        HeadSpec(name="mask", kind="segmentation", size=classes),
        HeadSpec(name="part", kind="segmentation", size=len(PARTS)),
        HeadSpec(name="disparity", kind="regression", size=1, mean=(round(mean, 3),), std=(round(max(std, 0.001), 3),)),
    )


def _part(path: Path, size: tuple[int, int]) -> Array:
    """The numbers of the parts, of a file with numbers of a class, an object and a part in one."""
    found = _decoded(path, "TIFF", size).astype(np.int64)
    kind, part = found // 100_000, found % 100
    numbers = np.zeros(found.shape, dtype=np.uint8)
    for kinds, before, count in ((_PEOPLE, 0, 4), (_VEHICLES, 4, 5)):
        is_one = np.isin(kind, kinds) & (part >= 1) & (part <= count)
        numbers[is_one] = before + part[is_one]
    return numbers


def _disparity(path: Path, size: tuple[int, int]) -> Array:
    found = _decoded(path, "PNG", size).astype(np.float32)
    # 0 is where none was found.
    disparity: Array = np.where(found > 0, (found - 1) / 256, np.float32("nan"))
    return disparity


def _decoded(path: Path, form: str, size: tuple[int, int]) -> Array:
    """A file's numbers, brought to a size by the nearest pixel."""
    try:
        with Image.open(path, formats=[form]) as image:
            found = _nearest(np.asarray(image), size)
    except Exception as error:
        raise InvalidValue(f"{path} cannot be read", expected=f"a {form} file", received=str(error)[:200]) from error
    if found.ndim != 2 or found.dtype.kind not in "iu" or found.dtype.itemsize < 2:
        raise InvalidValue(
            f"{path} is none of Cityscapes",
            expected="16 bits a pixel or more, in one channel",
            received=f"{found.dtype} {list(found.shape)}",
            action="unpack the archive again",
        )
    return found


def _nearest(pixels: Array, size: tuple[int, int]) -> Array:
    """As `Image.resize` would, which does not take every format of numbers."""
    if pixels.shape == size:
        return pixels
    rows, columns = (
        ((np.arange(wanted) + 0.5) * has / wanted).astype(np.int64)
        for wanted, has in zip(size, pixels.shape, strict=False)
    )
    found: Array = pixels[np.ix_(rows, columns)]
    return found
