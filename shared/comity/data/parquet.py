"""Files in Apache Parquet's format, read by pyarrow, an extra. Light: a new node's file is written without torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comity.errors import InvalidValue, MissingFile


@contextmanager
def opened(path: Path, action: str) -> Iterator[Any]:
    """A file, as pyarrow's `ParquetFile`; what is wrong with it may show while it is read.

    Args:
        path: Where it is.
        action: What to do where there is none.

    Raises:
        MissingFile: It is not there, or pyarrow is not installed.
        InvalidValue: It cannot be read.
    """
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
        raise MissingFile("The table", expected="a file", received=path, action=action)
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (ArrowException, OSError, ValueError) as error:
        raise InvalidValue(f"{path} is no table that can be read: {error}", action="write it anew") from error
