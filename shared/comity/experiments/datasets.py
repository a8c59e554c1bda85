"""Data of experiments: real sets cut to a size, kept as one file each that every party reads its share from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch

from comity.data import Dataset, Splits, limit_per_class, load
from comity.errors import MissingFile

SetName = Literal[
    "digits",
    "digits-scaled",
    "digits-blurred",
    "mnist",
    "mnist-blurred",
    "cifar10",
    "cifar10-blurred",
    "svhn",
    "cifar100",
    "cinic10",
    "tinyimagenet",
    "cityscapes",
    "mr",
    "sst",
]


@dataclass(frozen=True)
class Samples:
    """A data set, or the first samples of each of its classes.

    Attributes:
        name: Which.
        per_class: How many of each class to train on; None for all.
        test_per_class: How many of each class to test on; None for all. `digits` keeps its own.
    """

    name: SetName
    per_class: int | None = None
    test_per_class: int | None = None


@dataclass(frozen=True)
class _Origin:
    source: str
    root: str = ""
    words: int | None = None
    image_size: int | None = None


_ORIGINS: Mapping[str, tuple[_Origin, ...]] = MappingProxyType(
    {
        "digits": (_Origin("digits"),),
        "mnist": (_Origin("torchvision:MNIST"),),
        "cifar10": (_Origin("imagefolder:cifar10"), _Origin("torchvision:CIFAR10")),
        "cifar100": (_Origin("torchvision:CIFAR100"),),
        "tinyimagenet": (_Origin("tiny-imagenet:tiny-imagenet-200"),),
        "svhn": (_Origin("torchvision:SVHN"),),
        "cinic10": (_Origin("cinic10:cinic10"),),
        "cityscapes": (_Origin("cityscapes:cityscapes", image_size=128),),
        "mr": (_Origin("text:mr", words=40),),
        "sst": (_Origin("text:sst", words=40),),
    }
)
"""Where a set is looked for in the folder of real data, in this order."""
_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "digits": "scikit-learn's digits",
        "mnist": "MNIST",
        "cifar10": "CIFAR-10",
        "cifar100": "CIFAR-100",
        "tinyimagenet": "Tiny ImageNet",
        "svhn": "SVHN",
        "cinic10": "CINIC-10",
        "cityscapes": "Cityscapes",
        "mr": "MR",
        "sst": "SST",
    }
)
_CIFAR = ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262))
_NORMALIZATION: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "mnist": ((0.131,), (0.308,)),
        "cifar10": _CIFAR,
        "cifar100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
        "tinyimagenet": ((0.480, 0.448, 0.398), (0.277, 0.269, 0.282)),
        "svhn": _CIFAR,
    }
)


def title(name: SetName) -> str:
    """What people call a set."""
    known, _, changed = name.partition("-")
    return f"{_TITLES[known]}, {changed}" if changed else _TITLES[known]


def normalization(name: SetName) -> dict[str, Any]:
    """Mean and standard deviation of each channel of a set, as a script has them."""
    mean, std = _NORMALIZATION.get(name, ((), ()))
    return {"mean": mean, "std": std}


class Datasets:
    """Finds data sets and keeps what was cut from them.

    Args:
        folder: Where cut sets are kept.
        data: The folder of the real data sets; None where there is none.
    """

    def __init__(self, folder: Path, data: Path | None) -> None:
        self._folder = folder
        self._data = data

    def section(self, samples: Samples, seed: int = 0) -> dict[str, Any]:
        """The beginning of a script's `[party.NAME.data]`.

        Raises:
            MissingFile: The set is not there.
        """
        if samples.name == "digits":
            return {"source": "digits", "seed": seed, "per_class": samples.per_class}
        return {"source": f"npz:{self._cut(samples, seed)}", "seed": seed}

    def whole(self, source: str, *, image_size: int | None = None) -> Splits:
        """All of a set of which no part is cut, from the folder of real data.

        Args:
            source: As `[data] source` has it.
            image_size: See `load`.

        Raises:
            MissingFile: The set is not there.
        """
        return load(source, root=self._data or Path("no folder of data"), seed=0, image_size=image_size)

    def generated(self, name: str, make: Callable[[Path], None], kind: str) -> Splits:
        """A set that is generated, once, in the layout of a real one, and read as that is.

        Args:
            name: The folder that it goes to.
            make: Generates it.
            kind: The kind of source.
        """
        folder = self._folder.absolute() / name
        if not folder.exists():
            part = folder.with_name(f"{name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            make(part)
            part.replace(folder)
        return load(f"{kind}:{folder}", root=None, seed=0, image_size=None)

    def _cut(self, samples: Samples, seed: int) -> Path:
        kept = f"{samples.name}-{samples.per_class or 'all'}-{samples.test_per_class or 'all'}"
        # The test samples of digits are a draw by the seed; other sets bring theirs.
        seed = seed if samples.name.startswith("digits") else 0
        kept = f"{kept}-{seed}.npz" if seed else f"{kept}.npz"
        path = self._folder.absolute() / kept
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            train, test = self._read(samples, seed)
            part = path.with_suffix(".part.npz")
            arrays: dict[str, Any] = (
                {} if test is None else {"x_test": test.all_inputs.numpy(), "y_test": test.labels.numpy()}
            )
            arrays |= {"x": train.all_inputs.numpy(), "y": train.labels.numpy(), "classes": np.array(train.classes)}
            np.savez(part, **arrays)
            part.replace(path)
        return path

    def _read(self, samples: Samples, seed: int) -> tuple[Dataset, Dataset | None]:
        name, _, changed = samples.name.partition("-")
        for origin in _ORIGINS[name]:
            try:
                splits = load(
                    origin.source, root=self._data, seed=seed, image_size=origin.image_size, words=origin.words
                )
            except MissingFile:
                continue
            train, test = _first(splits.train, samples.per_class), splits.test
            test = None if test is None else _first(test, samples.test_per_class)
            change = _CHANGES.get(changed)
            return (train, test) if change is None else (change(train), test and change(test))
        raise MissingFile(
            f"The data set {name}",
            expected=" or ".join(origin.source for origin in _ORIGINS[name]),
            received=f"the folder {self._data}" if self._data else "no folder of data",
            action="name the folder that holds it with --data or COMITY_DATA",
        )


def _first(dataset: Dataset, per_class: int | None) -> Dataset:
    return dataset if per_class is None else dataset.select(limit_per_class(dataset.labels, per_class))


def _scaled(dataset: Dataset) -> Dataset:
    """Images in the range that models take, as an archive of floats has them."""
    return Dataset(dataset.all_inputs.float() * dataset.scale, dataset.labels, 1.0, dataset.classes)


def _blurred(dataset: Dataset) -> Dataset:
    """Images halved and enlarged again: of the same classes, from another domain."""
    small = torch.nn.functional.avg_pool2d(dataset.all_inputs.float(), 2)
    blurred = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
    if dataset.inputs.dtype == torch.uint8:
        return Dataset(blurred.round().to(torch.uint8), dataset.labels, dataset.scale, dataset.classes)
    # Floats are kept in the range that models take: an archive does not say their scale.
    return Dataset(blurred * dataset.scale, dataset.labels, 1.0, dataset.classes)


_CHANGES: Mapping[str, Callable[[Dataset], Dataset]] = {"blurred": _blurred, "scaled": _scaled}
