"""Files of tensors that people name, whatever they are."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from comity.errors import InvalidValue, MissingFile
from comity.tensors.files import metadata_of


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"\xff\xfe",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        b"PK\x03\x04 what torch.save writes",
    ],
)
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidValue, match="is no safetensors file.*a file that a session left"):
        metadata_of(path)


def test_a_file_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="check the path"):
        metadata_of(tmp_path / "nowhere")
