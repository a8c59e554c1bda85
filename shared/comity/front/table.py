"""What each round came to, as rows, as columns, or as a data frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from comity.errors import InvalidValue
from comity.protocol.presentation import Column
from comity.report.numbers import number

_LONGEST = 20
"""Rows that a notebook shows."""


class Rounds(Sequence[Mapping[str, Any]]):
    """Rows of numbers: `rounds[-1]["test_accuracy"]`, or the column `rounds["test_accuracy"]`.

    Args:
        rows: The rows.
        shown: The columns that people look at, and how they are written.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], shown: Sequence[Column] = ()) -> None:
        self._rows = list(rows)
        self._shown = list(shown)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Rounds: ...
    @overload
    def __getitem__(self, index: str) -> NDArray[Any]: ...
    def __getitem__(self, index: int | slice | str) -> Mapping[str, Any] | Rounds | NDArray[Any]:
        """A row, some of them, or a column by its name.

        Raises:
            KeyError: There is no such column.
        """
        if isinstance(index, str):
            return self.columns[index]
        if isinstance(index, slice):
            return Rounds(self._rows[index], self._shown)
        return self._rows[index]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """The rows."""
        return iter(self._rows)

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Every column as an array; numbers where all rows have one, with NaN for none, and objects otherwise."""
        names = dict.fromkeys(name for row in self._rows for name in row)
        return {name: _array([row.get(name) for row in self._rows]) for name in names}

    def to_pandas(self) -> Any:
        """The rows as a `pandas.DataFrame`.

        Raises:
            InvalidValue: pandas is not installed.
        """
        try:
            pandas: Any = import_module("pandas")
        except ImportError as error:
            raise InvalidValue(
                "there is no data frame here",
                expected="pandas, which is not installed",
                received="nothing",
                action="pip install pandas, or use .columns, which are arrays",
            ) from error
        return pandas.DataFrame(self._rows)

    def __repr__(self) -> str:
        """The rows as text, those in the middle left out."""
        return "\n".join("  ".join(f"{cell:>10}" for cell in line) for line in self._lines())

    def _repr_html_(self) -> str:
        head, *rows = self._lines()
        cells = "".join(f"<th>{escape(each)}</th>" for each in head)
        body = "".join("<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in rows)
        return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"

    def _lines(self) -> list[list[str]]:
        first = [name for name in ("round", "party") if self._rows and name in self._rows[0]]
        shown = [each for each in self._shown if any(row.get(each.field) is not None for row in self._rows)]
        lines = [
            [str(row[name]) for name in first] + [number(row.get(each.field), each.kind) for each in shown]
            for row in self._rows
        ]
        if len(lines) > _LONGEST:
            half = _LONGEST // 2
            lines = [*lines[:half], ["…"] * len(lines[0]), *lines[-half:]]
        return [[*first, *(each.title for each in shown)], *lines]


def _array(values: Sequence[Any]) -> NDArray[Any]:
    if all(isinstance(each, int | float) or each is None for each in values) and not all(e is None for e in values):
        if all(isinstance(each, int) for each in values):
            return np.array(values)
        return np.array([np.nan if each is None else each for each in values], dtype=np.float64)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
