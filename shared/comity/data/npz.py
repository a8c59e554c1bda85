"""Arrays in one NumPy archive: `x` and `y`, and where there is a test split `x_test` and `y_test`."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from comity.data.dataset import Dataset, Splits
from comity.data.sources import Request
from comity.errors import InvalidValue, MissingFile

Arrays = dict[str, NDArray[Any]]

_DAMAGED = (
    BadZipFile,
    EOFError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TokenError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What a damaged archive ends in: versions and methods that nobody knows, sizes that nobody has, and whatever else."""

_MOST_OF_A_BYTE = 1032
"""Deflate makes so many bytes of one at most."""
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

_KNOWN = ("x", "y", "x_test", "y_test", "classes")


def load(request: Request) -> Splits:
    """uint8 or float32 `[samples, ...]`, as `x` has it; uint8 is scaled by 1/255.

    There are as many classes as the single number `classes` says, which a party needs that lacks the last class; or
    else one more than the highest label.

    Raises:
        MissingFile: The file is not there.
        InvalidValue: An array is missing, unknown, of an unusable dtype, or of a shape that does not fit.
    """
    path = request.path
    arrays = _read(path)
    if len({"x_test", "y_test"} & arrays.keys()) == 1 or not {"x", "y"} <= arrays.keys() <= set(_KNOWN):
        raise InvalidValue(
            f"The arrays in {path}",
            expected="x and y, with x_test and y_test or neither, and classes or not",
            received=", ".join(arrays) or "none",
            action="name them so in numpy.savez(path, x=…, y=…)",
        )
    labels = {name: _labels(arrays[name], f"{name} in {path}") for name in ("y", "y_test") if name in arrays}
    classes = _classes(arrays, path) if "classes" in arrays else max(_highest(y) for y in labels.values()) + 1
    train = _dataset(arrays["x"], labels["y"], classes, f"x in {path}")
    if "x_test" not in arrays:
        return Splits(train, None)
    return Splits(train, _dataset(arrays["x_test"], labels["y_test"], classes, f"x_test in {path}"))


def _read(path: Path) -> Arrays:
    if not path.is_file():
        raise MissingFile(
            "The archive of arrays",
            expected="a file that numpy.savez wrote",
            received=path,
            action="correct `source`, or `root`, which a relative path starts from",
        )
    try:
        # Opened here, since numpy leaves a damaged file open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InvalidValue(
                    f"{path} holds one array",
                    expected="an archive",
                    received="an array",
                    action="write it with numpy.savez",
                )
            with archive:
                return {name: _array(archive, name, path) for name in archive.files}
    except _DAMAGED as error:
        raise InvalidValue(
            f"{path} cannot be read: {error}", action="write plain numbers, no objects, with numpy.savez"
        ) from error


def _array(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> NDArray[Any]:
    """One array, once what it claims to be can be in the file at all: memory is taken for what is there alone."""
    if archive.zip is None:
        raise ValueError("the archive is closed")
    info = archive.zip.getinfo(name if name in archive.zip.namelist() else f"{name}.npy")
    if info.compress_type not in {ZIP_STORED, ZIP_DEFLATED} or info.file_size > _MOST_OF_A_BYTE * path.stat().st_size:
        raise ValueError(f"{name} claims {info.file_size} bytes, or is compressed in another way than numpy does")
    with archive.zip.open(info) as file:
        version = npy.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{name} is of another version than numpy writes for numbers")
        shape, _, dtype = _HEADERS[version](file)
        there = info.file_size - file.tell()
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"{name} claims {dtype} {list(shape)[:8]} in {there} bytes")
    array: NDArray[Any] = archive[name]
    return array


def _dataset(x: NDArray[Any], labels: Tensor, classes: int, what: str) -> Dataset:
    if not (x.dtype == np.uint8 or x.dtype.kind == "f") or x.shape[:1] != labels.shape or x.ndim <= 1:
        raise InvalidValue(
            what,
            expected=f"uint8 or floats [{len(labels)}, ...]",
            received=f"{x.dtype} {list(x.shape)}",
            action="convert it, with one sample for each label",
        )
    if x.dtype == np.uint8:
        return Dataset(torch.from_numpy(x), labels, scale=1 / 255, classes=classes)
    # What float32 cannot hold becomes infinite here and is refused with the other values that are not finite.
    with np.errstate(over="ignore"):
        return Dataset(torch.from_numpy(np.asarray(x, dtype=np.float32)), labels, scale=1.0, classes=classes)


def _labels(y: NDArray[Any], what: str) -> Tensor:
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise InvalidValue(
            what,
            expected="whole numbers [samples]",
            received=f"{y.dtype} {list(y.shape)}",
            action="number the classes from 0, one label for each sample",
        )
    return torch.from_numpy(y.astype(np.int64))


def _classes(arrays: Arrays, path: Path) -> int:
    classes = arrays["classes"]
    if classes.dtype.kind not in "iu" or classes.ndim != 0 or classes < 1:
        raise InvalidValue(
            f"classes in {path}",
            expected="one whole number above 0",
            received=classes,
            action="correct it, or leave it out",
        )
    return int(classes)


def _highest(labels: Tensor) -> int:
    # An empty split, or one with negative labels only, is refused later, by what it holds.
    return max(int(labels.max()), 0) if len(labels) else 0
