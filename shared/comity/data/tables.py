"""Tables: columns by name, of which a node says what each is."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from comity.data.cells import Cells
from comity.data.config import TableConfig
from comity.data.dataset import CLASSIFICATION, Dataset, Splits
from comity.data.meaning import Meaning
from comity.data.sources import Request
from comity.data.texts import read_text
from comity.errors import InvalidValue, MissingFile

_SEPARATORS = ",;\t"


def load_csv(request: Request) -> Splits:
    """float32 `[rows, features]`, and a class, numbers or labels for each row.

    Raises:
        MissingFile: The file is not there.
        InvalidValue: A column is missing, or a cell cannot be read.
    """
    table = _required(request)
    path = request.path
    text = read_text(path, table.encoding)
    separator = table.separator or _separator(text, path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InvalidValue(
            f"{path}, line {reader.line_num} cannot be read",
            expected="cells, in double quotes where they hold a separator",
            received=error,
            action="correct the line",
        ) from error
    if len(rows) < 2:
        raise InvalidValue(f"{path} holds no row", expected="a line of names, and rows", received=f"{len(rows)} lines")
    names = [cell.strip() for cell in rows[0]]
    if doubled := [name for name in names if names.count(name) > 1 and name in _used(table)]:
        raise InvalidValue(f"{path} has the column {doubled[0]!r} twice", expected="each once", received="two")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise InvalidValue(
                f"{path}, row {number} has another number of cells than there are columns",
                expected=len(names),
                received=f"{len(row)}, separated by {separator!r}",
                action="correct the row, or name the `separator` in [data.table]",
            )
    columns = {name: [row[at].strip() for row in rows[1:]] for at, name in enumerate(names)}
    return _splits(columns, table, request)


def load_parquet(request: Request) -> Splits:
    """The same of a file in Apache Parquet's format.

    Raises:
        MissingFile: The file is not there, or pyarrow is not installed.
        InvalidValue: It cannot be read, a column is missing, or a cell cannot be read.
    """
    table = _required(request)
    path = request.path
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
        raise MissingFile("The table", expected="a file", received=path, action="correct `source`, or `root`")
    try:
        with parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            _require_columns(names, table, request)
            read = file.read(columns=[name for name in names if name in _used(table)])
        columns = {name: [_text(cell) for cell in read.column(name).to_pylist()] for name in read.column_names}
    except (ArrowException, OSError, ValueError) as error:
        raise InvalidValue(f"{path} is no table that can be read: {error}", action="write it anew") from error
    return _splits(columns, table.model_copy(update={"decimal": "."}), request)


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "1" if cell else "0"
    return repr(cell) if isinstance(cell, float) else str(cell).strip()


def _required(request: Request) -> TableConfig:
    if request.table is None:
        raise InvalidValue(
            "[data.table] is missing",
            expected="the columns that are used, by name",
            received="nothing",
            action='write [data.table] with target = "…" and columns = ["…"]; comity init --data csv:FILE does',
        )
    return request.table


def _used(table: TableConfig) -> set[str]:
    return {*table.targets, *table.columns, *(each for each in (table.id, table.protected) if each)}


def _require_columns(names: Sequence[str], table: TableConfig, request: Request) -> None:
    """Checks that a table has the columns that are used; of one without labels, targets may be lacking."""
    targets = table.targets if request.labelled else ()
    for name in (*targets, *table.columns, table.id, table.protected):
        if name is not None and name not in names:
            raise InvalidValue(
                f"{request.path} has no column {name!r}",
                expected=", ".join(names)[:500],
                received=name,
                action="correct [data.table]",
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


def _splits(columns: Mapping[str, Sequence[str]], table: TableConfig, request: Request) -> Splits:
    path = request.path
    _require_columns(list(columns), table, request)
    cells = Cells(columns, table, path)
    inputs, features = cells.inputs()
    count = len(inputs)
    ids = _ids(columns[table.id], path, table.id) if table.id is not None else tuple(map(str, range(1, count + 1)))
    marks = cells.marks(table.protected) if table.protected is not None else None
    task, labels, names = _targets(cells, table, count, labelled=request.labelled)
    meaning = Meaning(names, features, table.units, table.target_mean, table.target_std)
    train = Dataset(inputs, labels, 1.0, max(len(names), 1), ids=ids, protected=marks, meaning=meaning, task=task)
    return Splits(train, notes=tuple(cells.notes))


def _targets(cells: Cells, table: TableConfig, count: int, *, labelled: bool) -> tuple[str, Tensor, tuple[str, ...]]:
    """The kind of task that rows are for, what is to be told of them, and the names of classes, labels or numbers."""
    names = table.targets
    if table.kind == "numbers":
        numbers = [cells.numbers(name) for name in names] if labelled else [torch.zeros(count)] * len(names)
        return "regression", torch.stack(numbers, dim=1), names
    if table.kind == "labels":
        marks = (
            [cells.marks(name) for name in names] if labelled else [torch.zeros(count, dtype=torch.bool)] * len(names)
        )
        return "multilabel", torch.stack(marks, dim=1), names
    if labelled:
        return CLASSIFICATION, *cells.classes(names[0])
    return CLASSIFICATION, torch.full((count,), -1), ()


def _ids(cells: Sequence[str], path: Path, column: str) -> tuple[str, ...]:
    seen: set[str] = set()
    for row, cell in enumerate(cells, start=2):
        if not cell or cell in seen:
            raise InvalidValue(
                f"{path}, row {row}: the id {column} cannot be used",
                expected="an id of its own in each row",
                received=repr(cell[:100]) if cell else "nothing",
                action="correct it, or name another column",
            )
        seen.add(cell)
    return tuple(cells)
