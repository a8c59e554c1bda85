"""The table `[data]` of a new node: the settings that its source takes, with values that work with it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import tomlkit

from comity.data.config import MARKS
from comity.data.texts import read_text
from comity.errors import InvalidValue, MissingFile

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
        InvalidValue: A table has no such column, or cannot be read.
    """
    kind, _, location = source.partition(":")
    lines = [
        "# Where samples are from; comity data lists what there is. Games are gymnasium:<id>, with settings of their own.",
        f"source = {_value(source)}",
        "# Where torchvision's files are, or what a relative path in source starts from; this file's folder if left out.",
        '# root = "."',
    ]
    if kind == "gymnasium":
        return "\n".join(lines[:2])
    lines += _of_kind(kind)
    path = folder / Path(location).expanduser()
    table: list[str] = []
    if kind in {"csv", "parquet"}:
        table = ["", *_table(kind, path, targets)]
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


def _table(kind: str, path: Path, targets: Sequence[str]) -> list[str]:
    """`[data.table]`, with everything that the file says written down, so that it can be looked at and agreed."""
    columns, first, rows = (_of_csv if kind == "csv" else _of_parquet)(path)
    targets = targets or columns[-1:]
    for target in targets:
        if target not in columns:
            raise InvalidValue(
                f"{path} has no column {target!r}",
                expected=", ".join(columns)[:500],
                received=target,
                action="correct --target",
            )
    inputs = [name for name in columns if name not in targets]
    if not inputs:
        raise InvalidValue(
            f"{path} has no further column", expected="inputs beside the target", received=", ".join(targets)
        )
    texts = {name: sorted(first[name]) for name in inputs if not all(map(_is_number, first[name]))}
    categories = ", ".join(f"{tomlkit.key(name).as_string()} = {_value(values)}" for name, values in texts.items())
    return [
        "[data.table]",
        "# The column with the class, or with the number to be told; a list for several numbers, or labels.",
        f"target = {_value(targets[0] if len(targets) == 1 else list(targets))}",
        "# What it holds: classes; numbers; or labels, of which a row has any: 1, true or yes, and 0, false, no or nothing.",
        *_of_targets(path, {name: first[name] for name in targets}, rows),
        "# The columns that are inputs, in the order that both sides agree on.",
        f"columns = {_value(inputs)}",
        "# Values of columns that hold no numbers, in the agreed order: list them all, alike at all parties.",
        f"categories = {{ {categories} }}" if categories else "# categories = {}",
        "# What takes the place of missing values, by column.",
        f"# fill = {{ {tomlkit.key(inputs[0]).as_string()} = {_value(texts[inputs[0]][0]) if inputs[0] in texts else 0.0} }}",
        "# What stands for a missing value, beside an empty cell.",
        '# missing = ["NA", "NaN", "nan", "null", "?"]',
        "# What stands between cells; looked for if left out.",
        *([f"# separator = {_value(_separator_of(path))}"] if kind == "csv" else ['# separator = ","']),
        "# What stands before decimals.",
        '# decimal = "."',
        "# How the text is encoded; UTF-8, or what its first bytes say, if left out.",
        '# encoding = "utf-8-sig"',
    ]


def _of_targets(path: Path, values: Mapping[str, set[str]], rows: int) -> list[str]:
    """What targets hold, as far as it shows.

    Raises:
        InvalidValue: Several hold neither numbers nor labels.
    """
    different = {each for of_column in values.values() for each in of_column}
    numbers = all(map(_is_number, different))
    if numbers and len(values) == 1:
        found = {float(each.replace(",", ".")) for each in different}
        whole = all(each.is_integer() for each in found)
        numbers = not whole or len(found) > min(_MOST_CLASSES, max(rows // 2, 2))
    if numbers and not (len(values) > 1 and different <= {"0", "1"}):
        ones = ", ".join(["1.0"] * len(values))
        return [
            'kind = "numbers"',
            "# Units of the numbers, which both sides agree on; none if left out.",
            f"# units = {_value(['kg'] * len(values))}",
            "# What is taken off each when a model is trained, and what the rest is divided by; as the contract says if left",
            '# out: a script has them found by normalization = "computed", and takes numbers as they are without it.',
            f"# target_mean = [{ones}]",
            f"# target_std = [{ones}]",
        ]
    if len(values) == 1:
        return ['# kind = "classes"']
    if wrong := sorted({each.lower() for each in different} - MARKS):
        raise InvalidValue(
            f"{path}: several targets are numbers, or labels",
            expected="numbers, or 1, true, yes, 0, false, no and nothing",
            received=repr(wrong[0][:100]),
            action="name one --target for classes",
        )
    return ['kind = "labels"']


def _of_csv(path: Path) -> tuple[list[str], dict[str, set[str]], int]:
    """A table's columns, the different values in each, and how many rows there are."""
    text = read_text(path)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=_separator_of(path)))
    if len(rows) < 2:
        raise InvalidValue(f"{path} holds no row", expected="a line of names, and rows", received=f"{len(rows)} lines")
    names = [cell.strip() for cell in rows[0]]
    values: dict[str, set[str]] = {name: set() for name in names}
    for name, cell in _cells(names, rows[1:]):
        values[name].add(cell)
    return names, values, len(rows) - 1


def _cells(names: list[str], rows: list[list[str]]) -> Iterator[tuple[str, str]]:
    for row in rows:
        for name, cell in zip(names, row, strict=False):
            if cell.strip():
                yield name, cell.strip()


def _separator_of(path: Path) -> str:
    first = next((line for line in read_text(path).split("\n") if line.strip()), "")
    return max(",;\t", key=first.count)


def _of_parquet(path: Path) -> tuple[list[str], dict[str, set[str]], int]:
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingFile(
            f"{path} cannot be read",
            expected="pyarrow",
            received="none installed",
            action="pip install 'comity[table]'",
        ) from error
    if not path.is_file():
        raise MissingFile("The table", expected="a file", received=path, action="correct --data")
    try:
        read = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise InvalidValue(f"{path} is no table that can be read: {error}", action="write it anew") from error
    values = {
        name: {str(cell) for cell in set(read.column(name).to_pylist()) if cell is not None}
        for name in read.column_names
    }
    return list(read.column_names), values, read.num_rows


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _value(value: str | list[str]) -> str:
    return tomlkit.item(value).as_string()
