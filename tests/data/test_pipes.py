"""A pipe in the place of a file is one line: whoever opened it would wait for somebody to write, for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from comity.data.config import TableConfig
from comity.data.sources import load
from comity.errors import InvalidValue, MissingFile, UsageError

TABLE = TableConfig(target="y", columns=("x",))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("source", "pipe"),
    [
        ("csv:a.csv", "a.csv"),
        ("parquet:a.parquet", "a.parquet"),
        ("npz:a.npz", "a.npz"),
        ("imagefolder:.", "cat/a.png"),
        ("imagefolder:.", "cat/a.dcm"),
        ("text:.", "train.tsv"),
        ("text:.", "bad"),
    ],
)
def test_a_pipe_is_no_file_of_samples(tmp_path: Path, source: str, pipe: str) -> None:
    (tmp_path / pipe).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / pipe)
    with pytest.raises(UsageError) as caught:
        load(source, root=tmp_path, seed=0, image_size=None, table=TABLE)
    assert type(caught.value) in {InvalidValue, MissingFile}
    assert "\n" not in str(caught.value)
