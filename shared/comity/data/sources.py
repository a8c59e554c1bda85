"""Data by name: a source such as `digits`, or its kind and where it is, such as `npz:<file>`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

import torch

from comity.data.added import added_sources
from comity.data.config import TABLES, TableConfig
from comity.data.dataset import CLASSIFICATION, Dataset, Splits
from comity.data.known import require_known
from comity.data.reading import ReadInputs
from comity.errors import InvalidValue

# By name and not imported: each pulls in a large library, and a node reads one source.
_LOADERS: Mapping[str, str] = {
    "digits": "comity.data.digits:load",
    "torchvision": "comity.data.vision:load",
    "imagefolder": "comity.data.imagefolder:load",
    "cinic10": "comity.data.cinic10:load",
    "tiny-imagenet": "comity.data.tiny_imagenet:load",
    "cityscapes": "comity.data.cityscapes:load",
    "cityscapes-tasks": "comity.data.cityscapes_tasks:load",
    "nyuv2": "comity.data.nyuv2:load",
    "synthetic": "comity.data.synthetic:load",
    "npz": "comity.data.npz:load",
    "text": "comity.data.text:load",
    "csv": "comity.data.tables:load_csv",
    "parquet": "comity.data.tables:load_parquet",
    "python": "comity.data.python:load",
}
_SIZED = frozenset({"imagefolder", "cityscapes", "cityscapes-tasks", "tiny-imagenet"})
"""Sources of picture files."""


@dataclass(frozen=True)
class Request:
    """What a source is asked for.

    Attributes:
        location: What follows the colon: a name, a folder or a file; empty where the source takes none.
        root: The folder that relative locations start from; None is the working directory.
        seed: Decides a split that the source does not bring itself.
        image_size: The height and width to bring images to, in pixels; None keeps theirs.
        words: How many words to keep of a sentence; None is what the source takes.
        labelled: Whether the samples have labels; of those without, each is -1.
        channels: How many channels to bring images to; None keeps theirs.
        table: What the columns of a table are; None for what is not a table.
        in_memory: Whether inputs are read at once, rather than when they are asked for.
    """

    location: str
    root: Path | None
    seed: int
    image_size: int | None
    words: int | None = None
    labelled: bool = True
    channels: int | None = None
    table: TableConfig | None = None
    in_memory: bool = True

    @property
    def path(self) -> Path:
        """The location as a path."""
        return ((self.root or Path()).expanduser() / Path(self.location).expanduser()).absolute()


def load(  # noqa: PLR0913
    source: str,
    *,
    root: Path | None,
    seed: int,
    image_size: int | None,
    words: int | None = None,
    labelled: bool = True,
    channels: int | None = None,
    table: TableConfig | None = None,
    in_memory: bool = True,
) -> Splits:
    """Reads a data set into memory.

    Args:
        source: A kind and, behind a colon, where it is.
        root: For `torchvision`, the folder that holds the set in torchvision's layout; for the others, what a relative
            path starts from.
        seed: For `digits`, and for `text` without one of its own, decides the test split, in [0, 2**32); for
            `synthetic`, everything.
        image_size: For `imagefolder`, the height and width to bring images to, in pixels; None keeps theirs.
        words: For `text`, how many words to keep of a sentence; None is 56.
        labelled: Whether the samples have labels; where they may have none, each is -1.
        channels: For `imagefolder`, how many channels to bring images to; None keeps theirs.
        table: For `csv` and `parquet`, what the columns are.
        in_memory: For `imagefolder` and functions, whether inputs are read at once, rather than when they are asked for.

    Returns:
        The whole source on the CPU, not empty, with finite values and labels in range.

    Raises:
        MissingFile: A file or folder is not there or of the wrong kind.
        InvalidValue: There is no such source, it takes no such setting, or what it holds cannot be used.
    """
    require_known(source)
    kind, _, location = source.partition(":")
    added = added_sources()
    if image_size is not None and (kind not in _SIZED or image_size < 1):
        raise InvalidValue(
            f"The image size for {source!r}",
            expected="1 or more" if kind in _SIZED else f"none, since only {', '.join(sorted(_SIZED))} resize",
            received=image_size,
            action="correct `image_size`, or leave it out",
        )
    if words is not None and (kind != "text" or words < 1):
        raise InvalidValue(
            f"The words for {source!r}",
            expected="1 or more" if kind == "text" else "none, since only text has words",
            received=words,
        )
    for name, given, takes in (
        ("channels", channels, {"imagefolder"}),
        ("table", table, TABLES),
        ("in_memory", None if in_memory else "false", {*_SIZED, "nyuv2", "python", *added}),
    ):
        if given is not None and kind not in takes:
            raise InvalidValue(
                f"[data] {name} is not for {source!r}",
                expected=f"a source of {', '.join(sorted(takes))}",
                received=given,
                action="leave it out",
            )
    request = Request(location, root, seed, image_size, words, labelled, channels, table, in_memory)
    if kind in added:
        splits: Splits = resolve_name("comity.data.python:made")(added[kind], request)
    else:
        loader: Callable[[Request], Splits] = resolve_name(_LOADERS[kind])
        splits = loader(request)
    for name, each in splits.items():
        _check(
            each,
            f"{source!r}, {'training' if name == 'train' else name} split",
            labelled=labelled and name in {"train", "test"},
        )
    return splits


def _check(dataset: Dataset, what: str, *, labelled: bool) -> None:
    if not len(dataset):
        raise InvalidValue(f"{what}: there is no sample", action="name a source that holds data")
    # Of other tasks their kinds look at the targets.
    low, high = (int(bound) for bound in dataset.labels.aminmax()) if dataset.task == CLASSIFICATION else (0, 0)
    if low < (0 if labelled else -1) or high >= dataset.classes:
        raise InvalidValue(
            f"{what}: a label is out of range",
            expected=f"0 to {dataset.classes - 1}",
            received=low if low < 0 else high,
            action="number the classes from 0",
        )
    if isinstance(dataset.inputs, ReadInputs):
        # Looked at as they are read.
        return
    finite = torch.isfinite(dataset.inputs)
    if not finite.all():
        raise InvalidValue(
            f"{what}: inputs are not all finite",
            expected="finite numbers",
            received=f"{int((~finite).sum())} that are NaN or infinite",
            action="remove or fill them in",
        )
