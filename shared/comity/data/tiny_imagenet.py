"""Tiny ImageNet (Le and Yang 2015) as its archive unpacks.

    <dir>/train/<class>/images/*.JPEG   100,000 images of 64x64 pixels, 500 a class
    <dir>/val/images/*.JPEG             10,000 images
    <dir>/val/val_annotations.txt       a line for each of these: its file and its class, tab-separated, and a box

There are no labels for its test split, so that papers test on its validation split: it is the split `test` here.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from comity.data import imagefolder
from comity.data.dataset import Splits
from comity.data.sources import Request
from comity.data.texts import read_text
from comity.errors import InvalidValue, MissingFile

_ANNOTATIONS = "val_annotations.txt"


def load(request: Request) -> Splits:
    """uint8 RGB, `[samples, 3, height, width]`, classes numbered in the order of their names, which are WordNet's numbers.

    Raises:
        MissingFile: A folder, the annotations, or a picture that they name is not there.
        InvalidValue: There is no picture, one cannot be read, or an annotation names a class that is not trained on.
    """
    train, val = request.path / "train", request.path / "val"
    for folder in (train, val / "images"):
        if not folder.is_dir():
            raise MissingFile(
                "A split of Tiny ImageNet",
                expected=f"<dir>/train/<class>/images/*.JPEG and <dir>/val/images/*.JPEG with <dir>/val/{_ANNOTATIONS}",
                received=f"no folder {folder}",
                action="unpack tiny-imagenet-200.zip there",
            )
    names = imagefolder.classes_in(train)
    passed: Counter[str] = Counter()
    paths = imagefolder.labelled_in(train, names, passed)
    form = imagefolder.form_in(paths, train, request)
    return Splits(
        imagefolder.pictures_in(train, paths, names, form, request),
        imagefolder.pictures_in(val, _annotated(val, names), names, form, request),
    )


def _annotated(folder: Path, names: tuple[str, ...]) -> imagefolder.Paths:
    """The pictures of the validation split, each with the number of its class."""
    numbers = {name: number for number, name in enumerate(names)}
    found = []
    for at, line in enumerate(read_text(folder / _ANNOTATIONS).splitlines(), start=1):
        picture, _, rest = line.partition("\t")
        name = rest.partition("\t")[0]
        path = folder / "images" / Path(picture).name
        if name not in numbers:
            raise InvalidValue(
                f"{folder / _ANNOTATIONS}, line {at} names no class",
                expected="one of the folders in train, behind a tab",
                received=name[:100] or line[:100],
                action="unpack tiny-imagenet-200.zip anew",
            )
        if not path.is_file():
            raise MissingFile(
                f"A picture of line {at} of {_ANNOTATIONS}",
                expected="a file",
                received=path,
                action="unpack tiny-imagenet-200.zip anew",
            )
        found.append((path, numbers[name]))
    return found
