"""Images in one folder a class: `<dir>/<class>/*.jpg`, or that under `<dir>/train` and `<dir>/test`."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from comity.data.dataset import Dataset, Splits
from comity.data.sources import Request
from comity.errors import InvalidValue, MissingFile

Pixels = NDArray[np.uint8]

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")


def load(request: Request) -> Splits:
    """uint8 RGB, `[samples, 3, height, width]`, classes numbered in the order of their names.

    A party that has no sample of a class keeps an empty folder for it, so that the others keep their numbers. Files
    that are not images by their suffix, and hidden ones, are passed over.

    Raises:
        MissingFile: The folder is not there.
        InvalidValue: There is no image, one cannot be read or has another size, or the test split has other classes.
    """
    folder = request.path
    if not folder.is_dir():
        raise MissingFile(
            "The folder of images",
            expected="a folder that holds one folder a class",
            received=folder,
            action="correct `source`, or `root`, which a relative path starts from",
        )
    train, test = folder / "train", folder / "test"
    if not (train.is_dir() and test.is_dir()):
        return Splits(_read(folder, _classes(folder), request.image_size), None)
    names = _classes(train)
    if surplus := set(_classes(test)) - set(names):
        raise InvalidValue(
            f"{test} has classes that {train} lacks",
            expected=", ".join(names),
            received=", ".join(sorted(surplus)),
            action="make an empty folder for each class without a sample",
        )
    return Splits(_read(train, names, request.image_size), _read(test, names, request.image_size))


def _classes(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise InvalidValue(
            f"{folder} holds no folder",
            expected="one folder a class",
            received="none",
            action="put the images of each class into a folder of its name",
        )
    return names


def _read(folder: Path, names: list[str], image_size: int | None) -> Dataset:
    paths = [(path, label) for label, name in enumerate(names) for path in _images(folder / name)]
    if not paths:
        raise InvalidValue(
            f"{folder} holds no image",
            expected=f"<class>/*{{{','.join(sorted(_SUFFIXES))}}}",
            received="none",
            action="put images into the folders of their classes",
        )
    first = _decode(paths[0][0], image_size)
    inputs = np.empty((len(paths), *first.shape), dtype=np.uint8)
    workers = min(len(paths), os.cpu_count() or 1)

    def fill(worker: int) -> None:
        """Every `workers`-th image: one task a thread, since one an image costs as much as decoding a small one."""
        for index in range(worker, len(paths), workers):
            path = paths[index][0]
            image = _decode(path, image_size)
            if image.shape != first.shape:
                raise InvalidValue(
                    f"{path} has another size than the images before it",
                    expected=f"{first.shape[1]}x{first.shape[2]}",
                    received=f"{image.shape[1]}x{image.shape[2]}",
                    action="set `image_size`",
                )
            inputs[index] = image

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(fill, range(workers)):
            pass
    return Dataset(
        torch.from_numpy(inputs), torch.tensor([label for _, label in paths]), scale=1 / 255, classes=len(names)
    )


def _images(folder: Path) -> list[Path]:
    """The images of one class by name; none where the folder is not there."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    )


def _decode(path: Path, image_size: int | None) -> Pixels:
    """One image as uint8 `[3, height, width]`; with a size, its central square resized to that."""
    if not path.is_file():
        # A pipe would be waited for.
        raise InvalidValue(f"{path} is no file", expected="an image", received="something else", action="remove it")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                raise InvalidValue(
                    f"{path}", expected="8 bits a channel", received=f"mode {image.mode}", action="convert it"
                )
            if image_size is None:
                return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            # A large JPEG is decoded at the least of its own reduced sizes that still covers what is wanted.
            image.draft("RGB", (image_size, image_size))
            square = ImageOps.fit(image.convert("RGB"), (image_size, image_size), Image.Resampling.BILINEAR)
            return np.asarray(square).transpose(2, 0, 1)
    except (EOFError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all come from Pillow
        raise InvalidValue(f"{path} is not an image that can be read: {error}", action="repair or remove it") from error
