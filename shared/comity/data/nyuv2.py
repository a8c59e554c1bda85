"""NYUv2 (Silberman et al. 2012) as Liu et al. 2019 have prepared it: rooms, and three things of each of their pixels.

    <dir>/{train,val}/{image,label,depth,normal}/<number>.npy

Of each picture there are its colours, float `[height, width, 3]` from 0 to 1; its classes, `[height, width]` from 0 to 12, -1 where
a pixel has none; its depth, `[height, width, 1]`, and its surfaces' normals, `[height, width, 3]`, both 0 where nothing was
measured. The set's validation split is what papers test on: it is the split `test` here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

from comity.contract import HeadSpec
from comity.data.dataset import Dataset, Splits
from comity.data.meaning import Meaning
from comity.data.reading import ReadInputs
from comity.data.sources import Request
from comity.data.targets import SEVERAL
from comity.errors import InvalidValue, MissingFile

CLASSES = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)
"""The 13 classes (Couprie et al. 2013), in the order of their numbers."""
_KINDS = ("image", "label", "depth", "normal")
_CHANNELS = {"image": 3, "label": 0, "depth": 1, "normal": 3}
_IGNORED = 255


def load(request: Request) -> Splits:
    """float32 `[samples, 3, height, width]`; heads `mask`, uint8, `depth` and `normal`, float32 with NaN where there is none.

    Raises:
        MissingFile: A folder or a file is not there.
        InvalidValue: There is no picture, one cannot be read, or has another size than the ones before it.
    """
    return Splits(_split(request, "train"), _split(request, "val"))


def _split(request: Request, part: str) -> Dataset:
    folders = {kind: request.path / part / kind for kind in _KINDS}
    names = sorted((path.name for path in folders["image"].glob("*.npy")), key=lambda name: (len(name), name))
    if not names:
        raise MissingFile(
            "A split of NYUv2",
            expected="<dir>/{train,val}/{image,label,depth,normal}/<number>.npy",
            received=f"no picture in {folders['image']}",
            action="unpack the set as it is prepared for learning several tasks at once (Liu et al. 2019)",
        )
    for kind in _KINDS[1:]:
        if lacking := [name for name in names if not (folders[kind] / name).is_file()]:
            raise MissingFile(
                f"A {kind} of NYUv2",
                expected=f"one for each picture, {len(names)}",
                received=f"no {folders[kind] / lacking[0]}",
                action="unpack the set again",
            )
    pictures = [folders["image"] / name for name in names]
    first = _array(pictures[0], "image")
    size = first.shape[1:]

    def read(places: Sequence[int]) -> Tensor:
        return _all([pictures[place] for place in places], "image", size)

    every = range(len(names))
    stamp = blake3("\n".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in pictures).encode())
    inputs: Tensor | ReadInputs = (
        read(every)
        if request.in_memory
        else ReadInputs(read, torch.arange(len(names)), torch.from_numpy(first), stamp.hexdigest())
    )
    label, depth, normal = (_all([folders[kind] / name for name in names], kind, size) for kind in _KINDS[1:])
    wrong = (label != label.round()) | (label >= len(CLASSES))
    if bool(wrong.any()):
        raise InvalidValue(
            "the classes of NYUv2",
            expected=f"whole numbers below {len(CLASSES)}, of which those below 0 do not count",
            received=float(label[wrong][0]),
            action="take the set with 13 classes",
        )
    return Dataset(
        cast(Tensor, inputs),
        label.where(label >= 0, _IGNORED).to(torch.uint8),
        scale=1.0,
        classes=len(CLASSES),
        task=SEVERAL,
        heads=(
            HeadSpec(name="mask", kind="segmentation", size=len(CLASSES)),
            HeadSpec(name="depth", kind="regression", size=1),
            HeadSpec(name="normal", kind="regression", size=3),
        ),
        more={"depth": measured(depth), "normal": measured(normal)},
        ids=tuple(f"{part}/{name.removesuffix('.npy')}" for name in names),
        meaning=Meaning(),
    )


def measured(values: Tensor) -> Tensor:
    """Numbers of pixels, float32 `[samples, numbers, height, width]`, with NaN in place of pixels that have nothing but zeros."""
    return values.where(values.abs().sum(dim=1, keepdim=True) > 0, torch.nan)


def _all(paths: Sequence[Path], kind: str, size: tuple[int, ...]) -> Tensor:
    """Arrays of a kind, the samples in the first dimension, read by as many threads as there are processors."""
    channels = _CHANNELS[kind]
    filled = np.empty((len(paths), *((channels,) if channels else ()), *size), dtype=np.float32)

    def fill(place: int) -> None:
        found = _array(paths[place], kind)
        if found.shape != filled.shape[1:]:
            raise InvalidValue(
                f"{paths[place]} has another size than the pictures before it",
                expected="x".join(map(str, size)),
                received="x".join(map(str, found.shape[-2:])),
                action="unpack the set again",
            )
        filled[place] = found

    with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1) or 1) as pool:
        for _ in pool.map(fill, range(len(paths))):
            pass
    return torch.from_numpy(filled)


def _array(path: Path, kind: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One array, its channels first."""
    channels = _CHANNELS[kind]
    expected = f"finite numbers [height, width{f', {channels}' if channels else ''}]"
    try:
        found = np.load(path, allow_pickle=False)
    except Exception as error:
        raise InvalidValue(f"{path} cannot be read", expected=expected, received=str(error)[:200]) from error
    fits = found.ndim == (3 if channels else 2) and (not channels or found.shape[-1] == channels)
    if not fits or found.dtype.kind not in "fiu" or not np.isfinite(found).all():
        raise InvalidValue(
            f"{path} is none of NYUv2",
            expected=expected,
            received=f"{found.dtype} {list(found.shape)}" if not fits else "others",
            action="unpack the set again",
        )
    plain = found.astype(np.float32)
    return np.ascontiguousarray(plain.transpose(2, 0, 1)) if channels else plain
