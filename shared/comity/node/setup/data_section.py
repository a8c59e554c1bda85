"""The table `[data]` of a new node: the settings that its source takes, with values that work with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tomlkit

from comity.data.known import GAMES, require_known
from comity.errors import InvalidValue
from comity.node.setup.table_section import table_section

_FOLDERS = "imagefolder"
_NAMELESS = frozenset({"npz", "python"})
_READING = (
    "# Whether inputs are read at once; false for more than fit in memory, which are then read when a step asks for them.",
    "# in_memory = true",
)
_KEEPING = (
    "# Keep only the first samples of each class for training, this many; all if left out.",
    "# per_class = 100",
    "# For experiments, classes by their numbers of which nothing is trained on.",
    "# without = []",
)
_RELABELING = (
    "# For experiments, give this share of the samples the label of another class.",
    "# label_noise = 0.0",
    "# What the label of each class becomes, one for each class: [0, 1, 0, 1] makes two of four; as they are if left out.",
    "# relabel = []",
)
_MOST_CLASSES = 100
"""Names that are written down; more are left to whoever wants them."""


def data_section(source: str, folder: Path, targets: Sequence[str] = ()) -> str:
    """The lines below `[data]`.

    Args:
        source: The source.
        folder: Where the node's configuration will be, which relative paths count from.
        targets: Of a table, the columns with what is to be told; its last one if empty.

    Raises:
        MissingFile: A table is not there.
        InvalidValue: There is no such source, or a table has no such column, or cannot be read.
    """
    kind, _, location = source.partition(":")
    lines = [
        "# Where samples are from; comity data lists what there is. Games are gymnasium:<id>, with settings of their own.",
        f"source = {_value(source)}",
        "# Where torchvision's files are, or what a relative path in source starts from; this file's folder if left out.",
        '# root = "."',
    ]
    if kind == GAMES and location:
        return "\n".join(lines[:2])
    require_known(source)
    lines += _of_kind(kind)
    path = folder / Path(location).expanduser()
    table: list[str] = []
    if kind in {"csv", "parquet"}:
        table = ["", *table_section(kind, path, targets)]
    elif targets:
        raise InvalidValue(f"{source} has no columns", expected="csv:<file> or parquet:<file>", received=targets[0])
    # What goes by classes is shown where there are classes.
    has_classes = not {'kind = "numbers"', 'kind = "labels"'} & {*table}
    lines += [
        "# Decides which samples a share below is made of, and the test split of sources that draw one.",
        "# seed = 0",
        *(_naming(_classes(kind, path)) if has_classes else []),
        "# Whether names of classes and features cross as salted digests alone, which tell whether the other side has the same.",
        "# hide_names = false",
        "# Splits beside the one to train on: test, where the source brings none, validation, calibration, pool. Each is a share",
        '# of the training samples, or has a source = "..." of its own; protected = "ids.txt" lists what never leaves a pool.',
        "# splits = { calibration = { share = 0.1 } }",
        *(_KEEPING if has_classes else ()),
        "# For experiments, keep only a share of those; all if left out.",
        '# partition = { name = "uniform", parties = 2, index = 0, seed = 0 }',
        *(_RELABELING if has_classes else ()),
    ]
    return "\n".join([*lines, *table])


def _naming(classes: list[str]) -> list[str]:
    return [
        "# Names of the classes in the order that is agreed, or a table [data.classes] from own names to agreed ones; as the",
        "# source has them if left out.",
        f"# classes = {_value(classes)}",
    ]


def _of_kind(kind: str) -> list[str]:
    if kind == _FOLDERS:
        return [
            "# Height and width to bring images to, in pixels; theirs if left out.",
            "# image_size = 32",
            "# Channels to bring images to: 1 for grey, 3 for colours; theirs if left out.",
            "# channels = 3",
            *_READING,
        ]
    if kind == "text":
        return ["# How many words of each sentence to keep; 56 if left out.", "# words = 50"]
    if kind in _NAMELESS:
        return [
            *(_READING if kind == "python" else []),
            "# Names of the features, in order, where inputs are rows of a table.",
            "# features = []",
        ]
    return []


def _classes(kind: str, path: Path) -> list[str]:
    """The classes of a folder of images, which are cheap to look at."""
    if kind != _FOLDERS:
        return []
    train = path / "train" if (path / "train").is_dir() else path
    if not train.is_dir():
        return []
    hidden = (".", "__MACOSX")
    names = sorted(each.name for each in train.iterdir() if each.is_dir() and not each.name.startswith(hidden))
    return names if len(names) <= _MOST_CLASSES else []


def _value(value: str | list[str]) -> str:
    return tomlkit.item(value).as_string()
