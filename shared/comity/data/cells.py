"""Cells of a table, as numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from comity.data.config import MARKED, MARKS, TableConfig
from comity.data.numerals import number
from comity.data.spelling import spelled
from comity.errors import InvalidValue

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_MOST_CLASSES = 1000
"""A column of more different texts than this, or of one in each row or two, is none of classes."""


class Cells:
    """Cells of a table.

    Args:
        columns: Cells as text, by column; of a missing one, an empty text.
        table: What the columns are.
        path: Where they come from, for errors.

    Attributes:
        notes: What there is to say of them, a line each.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]], table: TableConfig, path: Path) -> None:
        self._columns = columns
        self._table = table
        self._path = path
        self._missing = {"", *table.missing}
        self.notes: list[str] = []

    def inputs(self) -> tuple[Tensor, tuple[str, ...]]:
        """float32 `[rows, features]`, and the features' names: those of columns, and `column=category`.

        Raises:
            InvalidValue: A cell is none of its column's, or is missing and nothing is said that takes its place.
        """
        parts, names = [], []
        for name in self._table.columns:
            categories = self._table.categories.get(name)
            if categories is None:
                parts.append(self.numbers(name).unsqueeze(1))
                names.append(name)
            else:
                parts.append(torch.nn.functional.one_hot(self._categories(name, categories), len(categories)).float())
                names += [f"{name}={each}"[:200] for each in categories]
        return torch.cat(parts, dim=1), tuple(names)

    def numbers(self, name: str) -> Tensor:
        """A column of numbers, float32 `[rows]`.

        Raises:
            InvalidValue: See `inputs`.
        """
        fill = self._table.fill.get(name)
        filled, found = 0, []
        for row, cell in enumerate(self._columns[name], start=2):
            if cell in self._missing:
                if not isinstance(fill, int | float):
                    raise self._lacking(name, row)
                filled += 1
                found.append(float(fill))
            else:
                found.append(self._number(name, row, cell))
        self._note_filled(name, filled)
        return torch.tensor(found, dtype=torch.float32)

    def _number(self, name: str, row: int, cell: str) -> float:
        decimal = self._table.decimal
        value = number(cell, decimal)
        if value is not None:
            return value
        action = f"correct it, list what stands for a missing value in missing, or name the values in categories.{name}"
        other = "," if decimal == "." else "."
        if number(cell, other) is not None:
            action = f'if that is a decimal {"comma" if other == "," else "point"}, set decimal = "{other}"'
        raise InvalidValue(
            f"{self._path}, row {row}: {name} is no number",
            expected="a number",
            received=repr(cell[:100]),
            action=action,
        )

    def _categories(self, name: str, categories: Sequence[str]) -> Tensor:
        """The places of a column's values in the list of them, int64 `[rows]`."""
        place = {each: number for number, each in enumerate(categories)}
        fill = self._table.fill.get(name)
        filled, found = 0, []
        for row, cell in enumerate(map(spelled, self._columns[name]), start=2):
            if cell in place:
                found.append(place[cell])
            elif cell in self._missing and fill is not None and str(fill) in place:
                filled += 1
                found.append(place[str(fill)])
            elif cell in self._missing:
                raise self._lacking(name, row)
            else:
                raise InvalidValue(
                    f"{self._path}, row {row}: {name} has a value that is none of its categories",
                    expected=", ".join(categories)[:500],
                    received=repr(cell[:100]),
                    action=f"add it to categories.{name} in [data.table], at all parties, or correct the row",
                )
        self._note_filled(name, filled)
        return torch.tensor(found, dtype=torch.int64)

    def classes(self, name: str) -> tuple[Tensor, tuple[str, ...]]:
        """A column of classes, int64 `[rows]`, and the classes' names: in the order of numbers, or else of texts.

        Raises:
            InvalidValue: A cell is empty, there is one class, or the column is none of classes.
        """
        cells = [_whole(each) for each in self._columns[name]]
        for row, cell in enumerate(cells, start=2):
            if cell in self._missing:
                raise InvalidValue(
                    f"{self._path}, row {row}: {name} says no class",
                    expected="a class",
                    received="nothing",
                    action="remove the row, or say which class it is",
                )
        different = set(cells)
        if len(different) > _MOST_CLASSES or (len(different) > 2 and len(different) * 2 > len(cells)):
            raise InvalidValue(
                f"{self._path}: the target {name} has almost as many values as there are rows",
                expected="a column of classes",
                received=f"{len(different)} different in {len(cells)} rows, such as {cells[0][:50]!r}",
                action='name the column with the class, or set kind = "numbers" in [data.table]',
            )
        texts = [each for each in different if not _is_number(each)]
        if texts and len(texts) < len(different):
            raise InvalidValue(
                f"{self._path}: the target {name} is a number in some rows and a text in others",
                expected="one or the other",
                received=f"{min(different - {*texts})!r} and {min(texts)!r}"[:200],
                action="write classes alike in all rows",
            )
        names = sorted(different) if texts else sorted(different, key=float)
        if names and not texts and all(_is_number(each) and float(each).is_integer() for each in names):
            # Numbers from 0 on are classes also where a party lacks one.
            last = int(float(names[-1]))
            if names[0] == "0" and last < _MOST_CLASSES:
                names = [str(number) for number in range(last + 1)]
        place = {each: number for number, each in enumerate(names)}
        return torch.tensor([place[each] for each in cells]), tuple(names)

    def marks(self, name: str) -> Tensor:
        """A column of marks, bool `[rows]`.

        Raises:
            InvalidValue: A cell is something else.
        """
        found = []
        for row, cell in enumerate(self._columns[name], start=2):
            if cell.lower() not in MARKS:
                raise InvalidValue(
                    f"{self._path}, row {row}: {name} is no mark",
                    expected="1, true or yes; 0, false, no or nothing",
                    received=repr(cell[:100]),
                    action=f"correct it, or name another column in the place of {name}",
                )
            found.append(cell.lower() in MARKED)
        return torch.tensor(found)

    def _note_filled(self, name: str, filled: int) -> None:
        if filled:
            self.notes.append(f"{filled} missing values of {name} are {self._table.fill[name]}")

    def _lacking(self, name: str, row: int) -> InvalidValue:
        cells = self._columns[name]
        missing = sum(each in self._missing for each in cells)
        if missing == len(cells):
            return InvalidValue(
                f"{self._path}: the column {name} is missing in all rows",
                expected="values",
                received="none",
                action="leave it out of [data.table] columns, at all parties",
            )
        categories = self._table.categories.get(name)
        value = f'"{categories[0]}"' if categories else "0.0"
        action = f"say what takes its place in [data.table], for example fill = {{ {_quoted(name)} = {value} }}"
        return InvalidValue(
            f"{self._path}, row {row}: {name} is missing",
            expected="a value",
            received=f"none, here and in {missing - 1} more rows",
            action="remove rows of which it is not known" if name in self._table.targets else action,
        )


def _quoted(name: str) -> str:
    """A column's name as a key of TOML."""
    return name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _whole(cell: str) -> str:
    """A whole number as such, however it is written."""
    if _is_number(cell) and float(cell).is_integer() and abs(float(cell)) < 2**53:
        return str(int(float(cell)))
    return cell


def _is_number(cell: str) -> bool:
    return number(cell) is not None and "," not in cell
