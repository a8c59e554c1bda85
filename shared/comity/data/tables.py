"""Tables: columns by name, of which a node says what each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from comity.data import parquet
from comity.data.cells import Cells
from comity.data.config import TableConfig
from comity.data.dataset import CLASSIFICATION, Dataset, Splits
from comity.data.lines import cell_text, read_lines
from comity.data.meaning import Meaning
from comity.data.sources import Request
from comity.data.spelling import spelled
from comity.errors import InvalidValue


def load_csv(request: Request) -> Splits:
    """float32 `[rows, features]`, and a class, numbers or labels for each row.

    Raises:
        MissingFile: The file is not there.
        InvalidValue: A column is missing, or a cell cannot be read.
    """
    table = _required(request)
    lines = read_lines(request.path, table.encoding, table.separator)
    _require_once(lines.names, table, request.path)
    columns = {name: [row[at] for row in lines.rows] for at, name in enumerate(lines.names)}
    return _splits(columns, table, request)


def load_parquet(request: Request) -> Splits:
    """The same of a file in Apache Parquet's format.

    Raises:
        MissingFile: The file is not there, or pyarrow is not installed.
        InvalidValue: It cannot be read, a column is missing, or a cell cannot be read.
    """
    table = _required(request)
    path = request.path
    with parquet.opened(path, "correct `source`, or `root`") as file:
        names = {spelled(name): name for name in file.schema_arrow.names}
        _require_once([spelled(name) for name in file.schema_arrow.names], table, path)
        _require_columns(list(names), table, request)
        read = file.read(columns=[name for called, name in names.items() if called in _used(table)])
        columns = {
            spelled(name): [cell_text(cell) for cell in read.column(name).to_pylist()] for name in read.column_names
        }
    return _splits(columns, table.model_copy(update={"decimal": "."}), request)


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


def _require_once(names: Sequence[str], table: TableConfig, path: Path) -> None:
    """Checks that no column that is used is there twice."""
    if doubled := [name for name in names if names.count(name) > 1 and name in _used(table)]:
        raise InvalidValue(f"{path} has the column {doubled[0]!r} twice", expected="each once", received="two")


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
