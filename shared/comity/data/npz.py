"""Arrays in one NumPy archive: `x` and `y`, and where there is a test split `x_test` and `y_test`.

What the samples are for, `y` says: see `comity.data.targets`. Targets of several heads are `y.depth`, `y_test.depth` and so on.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from dataclasses import replace
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
from comity.data.targets import labelled, require_from_nought
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

    Samples without labels may be `x` alone. There are as many classes as the single number `classes` says, which a party needs that lacks the last class; or
    else one more than the highest label.

    Raises:
        MissingFile: The file is not there.
        InvalidValue: An array is missing, unknown, of an unusable dtype, or of a shape that does not fit.
    """
    path = request.path
    arrays = _read(path)
    if not request.labelled and arrays.keys() == {"x"}:
        unknown = torch.full((len(np.atleast_1d(arrays["x"])),), -1)
        return Splits(_dataset(arrays["x"], unknown, None, ("x", "y"), path))
    targets = {split: _targets(arrays, split, path) for split in ("y", "y_test")}
    known = {*_KNOWN, *(f"{split}.{head}" for split in targets for head in _heads(arrays, split))}
    lacking = ("x_test" in arrays) != (targets["y_test"] is not None)
    if lacking or targets["y"] is None or "x" not in arrays or not arrays.keys() <= known:
        raise InvalidValue(
            f"The arrays in {path}",
            expected="x and y, with x_test and y_test or neither, and classes or not; or y.NAME for each of several heads",
            received=", ".join(arrays) or "none",
            action="name them so in numpy.savez(path, x=…, y=…)",
        )
    classes = _classes(arrays, path) if "classes" in arrays else None
    train = _dataset(arrays["x"], targets["y"], classes, ("x", "y"), path)
    tested = targets["y_test"]
    test = None if tested is None else _dataset(arrays["x_test"], tested, classes, ("x_test", "y_test"), path)
    splits = _alike(train, test)
    if classes is None:
        require_from_nought(
            splits, str(path), "add how many classes there are: numpy.savez(path, x=…, y=…, classes=10)"
        )
    return splits


def _alike(train: Dataset, test: Dataset | None) -> Splits:
    """Both with as many classes as the one that has more."""
    if test is None or test.task != train.task:
        return Splits(train, test)
    most = max(train.classes, test.classes)
    heads = tuple(
        max(one, other, key=lambda head: head.size) for one, other in zip(train.heads, test.heads, strict=False)
    )
    return Splits(replace(train, classes=most, heads=heads), replace(test, classes=most, heads=heads))


def _heads(arrays: Arrays, split: str) -> list[str]:
    return [name.partition(".")[2] for name in arrays if name.startswith(f"{split}.")]


def _targets(arrays: Arrays, split: str, path: Path) -> Tensor | dict[str, Tensor] | None:
    """The targets of a split: of one head, or of several by name; None where there are none."""
    heads = _heads(arrays, split)
    if split in arrays and not heads:
        return _target(arrays[split], f"{split} in {path}")
    return {head: _target(arrays[f"{split}.{head}"], f"{split}.{head} in {path}") for head in heads} or None


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
        with path.open("rb") as file, warnings.catch_warnings():
            # An archive of another age is read as any: numpy's advice on how to write it anew helps no session.
            warnings.simplefilter("ignore", UserWarning)
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


def _dataset(
    x: NDArray[Any], targets: Tensor | dict[str, Tensor], classes: int | None, names: tuple[str, str], path: Path
) -> Dataset:
    what, of_targets = (f"{name} in {path}" for name in names)
    count = len(targets if isinstance(targets, Tensor) else next(iter(targets.values())))
    if not (x.dtype == np.uint8 or x.dtype.kind == "f") or x.shape[:1] != (count,) or x.ndim <= 1:
        raise InvalidValue(
            what,
            expected=f"uint8 or floats [{count}, ...]",
            received=f"{x.dtype} {list(x.shape)}",
            action="convert it, with one sample for each label",
        )
    if x.dtype == np.uint8:
        return labelled(torch.from_numpy(x), targets, 1 / 255, of_targets, classes)
    # What float32 cannot hold becomes infinite here and is refused with the other values that are not finite.
    with np.errstate(over="ignore"):
        return labelled(torch.from_numpy(np.asarray(x, dtype=np.float32)), targets, 1.0, of_targets, classes)


def _target(y: NDArray[Any], what: str) -> Tensor:
    if y.dtype.kind not in "iubf" or y.ndim == 0:
        raise InvalidValue(
            what,
            expected="numbers [samples, ...]",
            received=f"{y.dtype} {list(y.shape)}",
            action="number the classes from 0, one label for each sample",
        )
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.asarray(y, dtype={"f": np.float32, "b": np.bool_}.get(y.dtype.kind, np.int64)))


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
