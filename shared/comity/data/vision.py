"""Data sets that torchvision knows, from files that are already here: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torchvision import datasets  # type: ignore[import-untyped, unused-ignore]

from comity.data.dataset import Dataset, Splits
from comity.data.meaning import Meaning
from comity.data.sources import Request
from comity.errors import InvalidValue, MissingFile

_CLASSES: Mapping[str, int] = {"CIFAR10": 10, "CIFAR100": 100, "FashionMNIST": 10, "MNIST": 10, "SVHN": 10}

_NUMBERED = frozenset({"MNIST", "SVHN"})


def load(request: Request) -> Splits:
    """uint8 `[samples, channels, height, width]`, with the set's own test split.

    Raises:
        MissingFile: There is no root, or it does not hold the set in torchvision's layout.
        InvalidValue: The set is not one of those that are read here, or its files are damaged.
    """
    name, root = request.location, request.root
    if name not in _CLASSES:
        raise InvalidValue(
            "This torchvision data set is not read",
            expected=f"one of {', '.join(_CLASSES)}",
            received=repr(name),
            action="convert it to an imagefolder or an npz",
        )
    fetch = f"fetch it once with torchvision.datasets.{name}(root, download=True)"
    if root is None or not root.expanduser().is_dir():
        raise MissingFile(
            f"The root of torchvision's {name}",
            expected="a folder in torchvision's layout",
            received=root or "no root",
            action=f"set `root`; {fetch}",
        )
    try:
        return Splits(_read(name, str(root.expanduser()), "train"), _read(name, str(root.expanduser()), "test"))
    except (RuntimeError, FileNotFoundError) as error:  # what torchvision raises where a file or its checksum is wrong
        raise MissingFile(f"torchvision finds no {name} under {root}", action=fetch) from error
    except (AssertionError, EOFError, OSError, ValueError) as error:
        raise InvalidValue(f"torchvision cannot read {name} under {root}: {error}", action=fetch) from error


def _read(name: str, root: str, split: str) -> Dataset:
    which = {"split": split} if name == "SVHN" else {"train": split == "train"}
    source: Any = getattr(datasets, name)(root, download=False, **which)
    # Each kind keeps its images its own way: [N, H, W], [N, H, W, C], and only SVHN as models want them.
    images = torch.as_tensor(source.data)
    if name.startswith("CIFAR"):
        images = images.permute(0, 3, 1, 2)
    elif name.endswith("MNIST"):
        images = images.unsqueeze(1)
    labels = torch.as_tensor(np.asarray(source.labels if name == "SVHN" else source.targets), dtype=torch.int64)
    # The classes of digits are their numbers.
    names = () if name in _NUMBERED else tuple(getattr(source, "classes", ()))
    meaning = Meaning(labels=names)
    return Dataset(images.contiguous(), labels, scale=1 / 255, classes=_CLASSES[name], meaning=meaning)
