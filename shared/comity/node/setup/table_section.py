"""`[data.table]` of a new node: what a table seems to hold, written down, so that it can be looked at and agreed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tomlkit

from comity.data import parquet
from comity.data.config import MARKS, TableConfig
from comity.data.dates import is_date
from comity.data.lines import cell_text, read_lines
from comity.data.numerals import number
from comity.data.spelling import spelled
from comity.errors import InvalidValue

_ENOUGH = 20
"""Rows from which on words that are all different say which row it is, and numbers that count rows."""
_MOST_CLASSES = 100
_MOST_CATEGORIES = 100
"""Values from which on a column holds words of its own, and no categories."""
_LONGEST = 200
"""Characters of a name, at most."""
_MISSING = frozenset({"", *TableConfig.model_fields["missing"].default})
_FALLBACKS = ("cp1252", "latin-1")
"""Encodings of texts that say nothing of it and are not in UTF-8, as spreadsheets write them; the last takes any bytes."""


@dataclass(frozen=True)
class _Column:
    """What a column holds.

    Attributes:
        name: What it is called.
        cells: What it holds, as text.
        decimal: What stands before decimals in the table.
    """

    name: str
    cells: Sequence[str]
    decimal: str = "."

    @cached_property
    def values(self) -> set[str]:
        """What is in it, beside what stands for missing values."""
        return {cell for cell in self.cells if cell not in _MISSING}

    @cached_property
    def lacking(self) -> int:
        """How many values are missing."""
        return sum(cell in _MISSING for cell in self.cells)

    @cached_property
    def holds_numbers(self) -> bool:
        """Whether it is a column of numbers; of many values of which most are, `comity check` names the row that is none."""
        found = sum(number(each, self.decimal) is not None for each in self.values)
        return found == len(self.values) or (len(self.values) > self._most_words and 2 * found > len(self.values))

    @cached_property
    def holds_dates(self) -> bool:
        """Whether most of what is in it says a day or a time."""
        return not self.holds_numbers and 2 * sum(map(is_date, self.values)) > len(self.values)

    @property
    def _most_words(self) -> int:
        """How many categories it can have."""
        return min(_MOST_CATEGORIES, max(_ENOUGH, len(self.cells) // 2))

    @cached_property
    def numbers(self) -> list[float]:
        """Its numbers."""
        return [value for each in self.cells if (value := number(each, self.decimal)) is not None]

    @property
    def tells_rows_apart(self) -> bool:
        """Whether it seems to say which row it is: by its name, by words of which every row has others, or by counting."""
        rows = len(self.cells)
        if len(self.values) < rows or rows < 2:
            return False
        if "id" in self.name.casefold().replace("-", "_").replace(" ", "_").split("_"):
            return True
        counts = self.holds_numbers and {*self.numbers} in ({*range(rows)}, {*range(1, rows + 1)})
        return rows >= _ENOUGH and not self.holds_dates and (counts or not self.holds_numbers)

    @property
    def not_used(self) -> str:
        """Why it cannot be an input; empty if it can."""
        if not self.name:
            return "has no name"
        if len(self.name) > _LONGEST:
            return f"has a name of more than {_LONGEST} characters"
        if not self.values:
            return "is empty"
        return "" if self.holds_numbers else self._no_categories

    @property
    def _no_categories(self) -> str:
        """Why what it holds, which is no numbers, cannot be categories; empty if it can."""
        if self.holds_dates:
            return "holds dates or times, which mean nothing as categories: make numbers of them, such as days since another"
        if len(self.values) > self._most_words:
            return f"holds words of its own in most rows: {len(self.values)} different ones, and each would cross by its name"
        return "" if len(self.values) > 1 else "holds one word alone"

    @property
    def filling(self) -> str:
        """What could take the place of missing values: the median of numbers, or the word that is there most often."""
        if self.holds_numbers and self.numbers:
            return repr(float(f"{statistics.median(self.numbers):.4g}"))
        return _value(statistics.mode([cell for cell in self.cells if cell not in _MISSING] or [""]))


@dataclass(frozen=True)
class _Table:
    """A table, and how its file is to be read.

    Attributes:
        columns: Its columns.
        separator: What stands between cells of a text.
        decimal: What stands before decimals.
        encoding: How a text is encoded where that has to be said.
    """

    columns: Sequence[_Column]
    separator: str = ","
    decimal: str = "."
    encoding: str | None = None


def table_section(kind: str, path: Path, targets: Sequence[str]) -> list[str]:
    """The lines of `[data.table]`.

    Args:
        kind: `csv` or `parquet`.
        path: The table.
        targets: The columns with what is to be told; the last one that has a name and values if empty.

    Raises:
        MissingFile: The table is not there.
        InvalidValue: It cannot be read, has no such column, or none beside the targets.
    """
    table = (_of_csv if kind == "csv" else _of_parquet)(path)
    columns = {each.name: each for each in table.columns}
    named = [each for each in table.columns if each.name and each.values]
    wanted = [spelled(each) for each in targets] or [each.name for each in named[-1:]]
    for target in wanted:
        if target not in columns:
            raise InvalidValue(
                f"{path} has no column {target!r}",
                expected=", ".join(columns)[:500],
                received=target,
                action="correct --target",
            )
        if columns[target].holds_dates:
            raise InvalidValue(
                f"{path}: the target {target} holds dates or times",
                expected="classes, numbers or labels",
                received=repr(next(each for each in columns[target].cells if is_date(each))),
                action="name the target's column: --target COLUMN; a date is told as a number, such as days since another",
            )
    others = [each for each in table.columns if each.name not in wanted]
    ids = [each for each in others if each.tells_rows_apart]
    # What tells rows apart would be learned by heart, and a list of its values would cross as categories.
    reasons = {each.name: each.not_used for each in others if each not in ids and each.not_used}
    inputs = [each for each in others if each not in ids and each.name not in reasons]
    # Of nothing but columns of numbers that count, those are the inputs.
    inputs = inputs or [each for each in ids if each.name and each.holds_numbers]
    if not inputs:
        raise InvalidValue(
            f"{path} has no further column that can be an input",
            expected="inputs beside the target",
            received=", ".join(f"{name or 'a column without a name'}, which {why}" for name, why in reasons.items())
            or f"{', '.join(wanted)} alone",
            action="add columns of numbers, or of a few words that come again",
        )
    known = [each for each in ids if each.name and each not in inputs]
    return _lines(table, kind, [columns[each] for each in wanted], inputs, known, reasons)


def _lines(
    table: _Table,
    kind: str,
    targets: Sequence[_Column],
    inputs: Sequence[_Column],
    ids: Sequence[_Column],
    reasons: Mapping[str, str],
) -> list[str]:
    words = {each.name: sorted(each.values) for each in inputs if not each.holds_numbers}
    categories = ", ".join(f"{_key(name)} = {_value(values)}" for name, values in words.items())
    gaps = [each for each in inputs if each.lacking]
    filling = ", ".join(f"{_key(each.name)} = {each.filling}" for each in gaps or inputs[:1])
    named = [each.name for each in targets]
    lacking = ", ".join(f"{each.lacking} of {each.name}"[:100] for each in gaps[:5])
    return [
        "[data.table]",
        "# The column with the class, or with the number to be told; a list for several numbers, or labels.",
        f"target = {_value(named[0] if len(named) == 1 else named)}",
        "# What it holds: classes; numbers; or labels, of which a row has any: 1, true or yes, and 0, false, no or nothing.",
        *_of_targets(targets),
        "# The columns that are inputs, in the order that both sides agree on.",
        *[f"# Not among them: {_value(name)}, which {why}." for name, why in list(reasons.items())[:50]],
        f"columns = {_value([each.name for each in inputs])}",
        "# The column that tells rows apart, which is no input, is named by id: ids that stay; rows are numbered if left out.",
        *[f"id = {_value(each.name)}" for each in ids[:1]],
        "# Values of columns that hold no numbers, in the agreed order: list them all, alike at all parties.",
        f"categories = {{ {categories} }}" if categories else "# categories = {}",
        "# What takes the place of missing values, by column"
        + (f"; missing are {lacking}{' and others' if len(gaps) > 5 else ''}." if gaps else "."),
        f"# fill = {{ {filling} }}",
        "# What stands for a missing value, beside an empty cell.",
        f"# missing = {_value(list(TableConfig.model_fields['missing'].default))}",
        "# What stands between cells; looked for if left out.",
        f"# separator = {_value(table.separator)}",
        "# What stands before decimals.",
        f"{'# ' if table.decimal == '.' else ''}decimal = {_value(table.decimal)}",
        "# How the text is encoded; UTF-8, or what its first bytes say, if left out.",
        f"encoding = {_value(table.encoding)}" if table.encoding and kind == "csv" else '# encoding = "utf-8-sig"',
    ]


def _of_targets(targets: Sequence[_Column]) -> list[str]:
    """What targets hold, as far as it shows.

    Raises:
        InvalidValue: Several hold neither numbers nor labels.
    """
    different = {value for each in targets for value in each.values}
    numbers = all(each.holds_numbers for each in targets) and bool(different)
    if numbers and len(targets) == 1:
        found = {*targets[0].numbers}
        whole = all(each.is_integer() for each in found)
        numbers = not whole or len(found) > min(_MOST_CLASSES, max(len(targets[0].cells) // 2, 2))
    if numbers and not (len(targets) > 1 and different <= {"0", "1"}):
        ones = ", ".join(["1.0"] * len(targets))
        return [
            'kind = "numbers"',
            "# Units of the numbers, which both sides agree on; none if left out.",
            f"# units = {_value(['kg'] * len(targets))}",
            "# What is taken off each when a model is trained, and what the rest is divided by; as the contract says if left",
            '# out: a script has them found by normalization = "computed", and takes numbers as they are without it.',
            f"# target_mean = [{ones}]",
            f"# target_std = [{ones}]",
        ]
    if len(targets) == 1:
        return ['# kind = "classes"']
    if wrong := sorted({each.lower() for each in different} - MARKS):
        raise InvalidValue(
            f"{', '.join(each.name for each in targets)[:200]}: several targets are numbers, or labels",
            expected="numbers, or 1, true, yes, 0, false, no and nothing",
            received=repr(wrong[0][:100]),
            action="name one --target for classes",
        )
    return ['kind = "labels"']


def _of_csv(path: Path) -> _Table:
    """A table as text; where its encoding says nothing of itself and is not UTF-8, in that of spreadsheets."""
    encoding = _encoding(path)
    lines = read_lines(path, encoding)
    _require_once(lines.names, path)
    cells = {name: [row[at] for row in lines.rows] for at, name in enumerate(lines.names)}
    decimal = "," if any(map(_has_decimal_comma, cells.values())) else "."
    return _Table([_Column(*each, decimal) for each in cells.items()], lines.separator, decimal, encoding)


def _has_decimal_comma(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers with a decimal comma, and not with a point."""
    values = {cell for cell in cells if cell not in _MISSING}
    return (
        bool(values)
        and all(number(each, ",") is not None for each in values)
        and any(number(each) is None for each in values)
    )


def _encoding(path: Path) -> str | None:
    try:
        read_lines(path)
    except InvalidValue as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
    else:
        return None
    data = path.read_bytes()
    for each in _FALLBACKS:
        try:
            data.decode(each)
        except UnicodeDecodeError:
            continue
        return each
    return None


def _of_parquet(path: Path) -> _Table:
    with parquet.opened(path, "correct --data") as file:
        read = file.read()
        cells = [[cell_text(cell) for cell in read.column(at).to_pylist()] for at in range(read.num_columns)]
    names = [spelled(name) for name in read.column_names]
    _require_once(names, path)
    return _Table([_Column(*each) for each in zip(names, cells, strict=True)])


def _require_once(names: Sequence[str], path: Path) -> None:
    if doubled := [name for name in names if name and names.count(name) > 1]:
        raise InvalidValue(
            f"{path} has the column {doubled[0]!r} twice",
            expected="each once",
            received="two",
            action="call one of them otherwise",
        )


def _key(name: str) -> str:
    return str(tomlkit.key(name).as_string())


def _value(value: Any) -> str:
    return str(tomlkit.item(value).as_string())
