"""Images in one folder a class: `<dir>/<class>/**/*.jpg`, or that under `<dir>/train` and `<dir>/test`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

from comity.data.config import SplitName
from comity.data.dataset import Dataset, Splits
from comity.data.meaning import Meaning
from comity.data.pictures import SUFFIXES, Form, Pixels, decode, form_of
from comity.data.reading import ReadInputs
from comity.data.sources import Request
from comity.errors import InvalidValue, MissingFile

Paths = list[tuple[Path, int]]
"""Pictures, each with the number of its class."""

IGNORED = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
"""What systems leave in folders."""

FOLDERS: Mapping[str, SplitName] = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
}
"""Which folder is which split, where there is a folder `train` and one of the others."""


def load(request: Request, folders: Mapping[str, SplitName] = FOLDERS) -> Splits:
    """uint8 or float32, `[samples, channels, height, width]`, classes numbered in the order of their names.

    Grey pictures have one channel and others three, pictures of more than 8 bits a channel are floats from 0 to 1; they are
    turned as their EXIF data say. Folders in a class's folder belong to it. A party that has no sample of a class keeps an
    empty folder for it, or names it in `[data] classes`. Files that are no pictures by their suffix, and hidden ones, are
    passed over, and counted.

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
    passed: Counter[str] = Counter()
    if not request.labelled:
        paths = [(path, -1) for path in _images(folder, passed)]
        train = pictures_in(folder, paths, (), form_in(paths, folder, request), request)
        return Splits(train, notes=_notes(passed))
    parts = {part: split for part, split in folders.items() if (folder / part).is_dir()}
    if len(parts) < 2 or "train" not in parts:
        names = classes_in(folder)
        paths = labelled_in(folder, names, passed)
        return Splits(
            pictures_in(folder, paths, names, form_in(paths, folder, request), request),
            notes=_notes(passed, names, paths),
        )
    names = classes_in(folder / "train")
    found: dict[SplitName, tuple[Path, Paths]] = {}
    for part, split in parts.items():
        if surplus := set(classes_in(folder / part)) - set(names):
            raise InvalidValue(
                f"{folder / part} has classes that {folder / 'train'} lacks",
                expected=", ".join(names),
                received=", ".join(sorted(surplus)),
                action="make an empty folder for each class without a sample",
            )
        found[split] = (folder / part, labelled_in(folder / part, names, passed))
    form = form_in(found["train"][1], folder / "train", request)
    read = {split: pictures_in(*each, names, form, request) for split, each in found.items()}
    others: dict[SplitName, Dataset] = {split: each for split, each in read.items() if split == "validation"}
    return Splits(read["train"], read.get("test"), others, _notes(passed, names, found["train"][1]))


def classes_in(folder: Path) -> tuple[str, ...]:
    """The classes that have a folder, in the order of their names.

    Raises:
        InvalidValue: There is none.
    """
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_passed(entry)))
    if not names:
        raise InvalidValue(
            f"{folder} holds no folder",
            expected="one folder a class",
            received="none",
            action="put the images of each class into a folder of its name",
        )
    return names


def labelled_in(folder: Path, names: tuple[str, ...], passed: Counter[str]) -> Paths:
    """The pictures of each class; those that lie beside the classes' folders are passed over.

    Raises:
        InvalidValue: All that a class has was passed over.
    """
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() and not _is_passed(entry):
            passed[f"{entry.name} beside the folders of classes"] += 1
    found = []
    for label, name in enumerate(names):
        before = passed.total()
        paths = list(_images(folder / name, passed)) if (folder / name).is_dir() else []
        if not paths and passed.total() > before:
            raise InvalidValue(
                f"{folder / name} holds no image that is read",
                expected=f"*{{{','.join(sorted(SUFFIXES))}}}",
                received=f"{passed.total() - before} other files",
                action="convert them, or remove the folder if it is no class",
            )
        found += [(path, label) for path in paths]
    return found


def _images(folder: Path, passed: Counter[str], above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """The pictures in a folder and in the folders in it, by name; a link to a folder that it lies in leads nowhere new."""
    above = (*above, folder.resolve())
    for entry in sorted(folder.iterdir()):
        if _is_passed(entry):
            continue
        if entry.is_dir():
            if any(each.is_relative_to(entry.resolve()) for each in above):
                passed[f"{entry.name}, a link to a folder that it lies in"] += 1
            else:
                yield from _images(entry, passed, above)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry
        else:
            passed[f"*{entry.suffix.lower()}" if entry.suffix else entry.name] += 1


def _is_passed(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name in IGNORED


def _notes(passed: Counter[str], names: tuple[str, ...] = (), paths: Paths | None = None) -> tuple[str, ...]:
    """What there is to say of what was passed over, and of classes without a picture."""
    notes = []
    if passed:
        listed = ", ".join(f"{count} {what}" for what, count in passed.most_common(5))
        more = len(passed) - 5
        notes.append(
            f"{passed.total()} files passed over: {listed}" + (f", and {more} other kinds" if more > 0 else "")
        )
    empty = sorted(set(range(len(names))) - {label for _, label in paths or ()}) if names else []
    if empty:
        notes.append(f"empty folders: {', '.join(names[label] for label in empty)[:200]}")
    return tuple(notes)


def form_in(paths: Paths, folder: Path, request: Request) -> Form:
    """What the pictures are brought to: three channels where any of those looked at has colours, unless somebody says."""
    if not paths:
        raise InvalidValue(
            f"{folder} holds no image",
            expected=f"<class>/*{{{','.join(sorted(SUFFIXES))}}}",
            received="none",
            action="put images into the folders of their classes",
        )
    form = form_of([path for path, _ in paths])
    return form if request.channels is None else replace(form, channels=request.channels)


def pictures_in(folder: Path, paths: Paths, names: tuple[str, ...], form: Form, request: Request) -> Dataset:
    """The pictures themselves.

    Raises:
        InvalidValue: There is none, one cannot be read, or has another size than those before it.
    """
    if not paths:
        raise InvalidValue(
            f"{folder} holds no image",
            expected=f"<class>/*{{{','.join(sorted(SUFFIXES))}}}",
            received="none",
            action="put images into the folders of their classes",
        )
    image_size = request.image_size
    first = decode(paths[0][0], form, image_size)
    if not request.in_memory:
        inputs: Tensor | ReadInputs = _when_asked([path for path, _ in paths], first, form, image_size)
        return _dataset(inputs, paths, folder, names)
    filled = np.empty((len(paths), *first.shape), dtype=first.dtype)
    workers = min(len(paths), os.cpu_count() or 1)

    def fill(worker: int) -> None:
        """Every `workers`-th image: one task a thread, since one an image costs as much as decoding a small one."""
        for index in range(worker, len(paths), workers):
            path = paths[index][0]
            image = decode(path, form, image_size)
            if image.shape != first.shape:
                raise InvalidValue(
                    f"{path} has another size than the images before it",
                    expected=f"{first.shape[1]}x{first.shape[2]}",
                    received=f"{image.shape[1]}x{image.shape[2]}",
                    action="set `image_size`",
                )
            filled[index] = image

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(fill, range(workers)):
            pass
    return _dataset(torch.from_numpy(filled), paths, folder, names)


def _when_asked(paths: list[Path], first: Pixels, form: Form, image_size: int | None) -> ReadInputs:
    """The pictures as they are asked for, decoded by as many threads as there are processors."""
    stats = [(path, path.stat()) for path in paths]
    stamp = blake3("\n".join(f"{path} {each.st_size} {each.st_mtime_ns}" for path, each in stats).encode()).hexdigest()

    def read(places: Sequence[int]) -> Tensor:
        with ThreadPoolExecutor(min(len(places), os.cpu_count() or 1) or 1) as pool:
            found = list(pool.map(lambda place: decode(paths[place], form, image_size), places))
        if odd := [place for place, each in zip(places, found, strict=True) if each.shape != first.shape]:
            raise InvalidValue(
                f"{paths[odd[0]]} has another size than the images before it",
                expected=f"{first.shape[1]}x{first.shape[2]}",
                received="another",
                action="set `image_size`",
            )
        return torch.from_numpy(np.stack(found))

    return ReadInputs(read, torch.arange(len(paths)), torch.from_numpy(first.copy()), stamp)


def _dataset(inputs: Tensor | ReadInputs, paths: Paths, folder: Path, names: tuple[str, ...]) -> Dataset:
    return Dataset(
        cast(Tensor, inputs),
        torch.tensor([label for _, label in paths]),
        scale=1 / 255 if inputs.dtype == torch.uint8 else 1.0,
        classes=max(len(names), 1),
        ids=tuple(path.relative_to(folder).as_posix() for path, _ in paths),
        meaning=Meaning(labels=names),
    )
