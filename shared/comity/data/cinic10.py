"""CINIC-10 (Darlow et al. 2018): CIFAR-10's classes from another domain, as its archive unpacks.

    <dir>/train/<class>/*.png   90,000 images, 9,000 a class
    <dir>/valid/<class>/*.png   90,000 images, not read
    <dir>/test/<class>/*.png    90,000 images

The classes are those of CIFAR-10 under the same numbers, so that one party may hold the one and another the other set
(different domains, section A.9.2 of Chen et al. 2023).
"""

from __future__ import annotations

from comity.data import imagefolder
from comity.data.dataset import Splits
from comity.data.sources import Request
from comity.errors import InvalidValue, MissingFile

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""CIFAR-10's classes in the order of their numbers, which is that of their names."""


def load(request: Request) -> Splits:
    """uint8 RGB, `[samples, 3, 32, 32]`, with the set's own training and test splits.

    Raises:
        MissingFile: The folder, or one of the two splits, is not there.
        InvalidValue: The classes are others, or an image cannot be read or is not of 32x32 pixels.
    """
    for split in ("train", "test"):
        folder = request.path / split
        if not folder.is_dir():
            raise MissingFile(
                "A split of CINIC-10",
                expected="<dir>/train/<class>/*.png and <dir>/test/<class>/*.png",
                received=f"no folder {folder}",
                action="unpack CINIC-10.tar.gz there",
            )
        found = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
        if found != CLASSES:
            raise InvalidValue(f"The classes in {folder}", expected=", ".join(CLASSES), received=", ".join(found))
    splits = imagefolder.load(request, {"train": "train", "test": "test"})
    if splits.train.input_shape != (3, 32, 32):
        shape = "x".join(str(length) for length in splits.train.input_shape[1:])
        raise InvalidValue(f"The images in {request.path}", expected="32x32 pixels", received=shape)
    return splits
