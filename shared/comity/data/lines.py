"""A table as text, in lines and cells. Light: a new node's file is written without torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.data.numerals import number
from comity.data.spelling import spelled
from comity.data.texts import read_text
from comity.errors import InvalidValue

_SEPARATORS = ",;\t|"
_SAID = "sep="
"""What spreadsheets begin a file with that says what stands between its cells."""


@dataclass(frozen=True, slots=True)
class Lines:
    """What a file holds.

    Attributes:
        names: The columns, as the first line spells them.
        rows: Cells without spaces around them, as many in each row as there are columns. Empty lines are left out.
        separator: What stands between cells.
    """

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    separator: str


def read_lines(path: Path, encoding: str | None = None, separator: str | None = None) -> Lines:
    """A table's lines.

    Args:
        path: The file.
        encoding: How it is encoded; None for what it says itself, or else UTF-8.
        separator: What stands between cells; None for what it says itself, or else what its first line looks like.

    Raises:
        MissingFile: The file is not there.
        InvalidValue: It cannot be read, has no row, or has rows of unlike lengths, or begins with numbers.
    """
    text = read_text(path, encoding)
    first, _, rest = text.partition("\n")
    said = first.strip().strip('"')
    if said.lower().startswith(_SAID) and len(said) == len(_SAID) + 1:
        text, separator = rest, separator or said[-1]
    separator = separator or _separator(text, path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [[cell.strip() for cell in row] for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InvalidValue(
            f"{path}, line {reader.line_num} cannot be read",
            expected="cells, in double quotes where they hold a separator",
            received=error,
            action="correct the line",
        ) from error
    if len(rows) < 2:
        raise InvalidValue(f"{path} holds no row", expected="a line of names, and rows", received=f"{len(rows)} lines")
    names = [spelled(cell) for cell in rows[0]]
    for place, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise InvalidValue(
                f"{path}, row {place} has another number of cells than there are columns",
                expected=len(names),
                received=f"{len(row)}, separated by {separator!r}",
                action="correct the row, or name the `separator` in [data.table]",
            )
    _require_names(names, path)
    return Lines(names, rows[1:], separator)


def cell_text(cell: Any) -> str:
    """What a cell of a typed table is as text: nothing where it is missing, truth as 1 and 0."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "1" if cell else "0"
    return repr(cell) if isinstance(cell, float) else str(cell).strip()


def _require_names(names: Sequence[str], path: Path) -> None:
    """Checks that the first line holds names: years and places may be numbers, but no name has decimals."""
    values = {name: number(name) for name in names}
    if measured := [name for name, value in values.items() if value is not None and not value.is_integer()]:
        raise InvalidValue(
            f"{path} begins with numbers",
            expected="a first line with the columns' names",
            received=", ".join(measured)[:200],
            action="put a line of names before the rows",
        )


def _separator(text: str, path: Path) -> str:
    """What stands between the names in the first line."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    counts = {each: first.count(each) for each in _SEPARATORS}
    found = max(counts, key=lambda each: counts[each])
    others = [each for each in counts if counts[each] and each != found]
    if others and counts[others[0]] * 2 > counts[found]:
        raise InvalidValue(
            f"{path}: it cannot be told what stands between cells",
            expected="separator in [data.table]",
            received=" and ".join(repr(each) for each in (found, *others)),
            action='name it, for example separator = ";"',
        )
    return found if counts[found] else ","
