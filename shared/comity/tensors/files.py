"""Blobs as safetensors files that say of themselves what they are.

The tensors of a file stand as in the blob; the header has texts beside them, so that the digest of a session's model is
that of its tensors, whatever the file says of it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import Struct

from comity.errors import InvalidValue, MissingFile
from comity.tensors.blob import Blob

_LENGTH = Struct("<Q")
_ALIGNMENT = 8
_MOST_HEADER = 100_000_000
"""As safetensors has it, in bytes."""


def described_file(blob: Blob, metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """A blob as a file with metadata, in parts that are not copied.

    Args:
        blob: Tensors in safetensors layout.
        metadata: What the file says of itself.
    """
    (length,) = _LENGTH.unpack(blob.data[: _LENGTH.size])
    begin = _LENGTH.size + length
    entries = json.loads(bytes(blob.data[_LENGTH.size : begin]))
    text = json.dumps({"__metadata__": dict(metadata), **entries}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield _LENGTH.pack(len(text)) + text
    yield blob.data[begin:]


def metadata_of(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; nothing where it says nothing.

    Raises:
        MissingFile: It is not there.
        InvalidValue: It is of another kind.
    """
    if not path.is_file():
        raise MissingFile(
            "the model cannot be read",
            expected="a safetensors file, or a session's folder",
            received=f"{path}, where none is",
            action="check the path",
        )
    try:
        with path.open("rb") as file:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            header = json.loads(file.read(length)) if length <= _MOST_HEADER else None
    except (ValueError, RecursionError, struct.error, OSError) as error:
        raise _no_file(path) from error
    if not isinstance(header, dict):
        raise _no_file(path)
    found = header.get("__metadata__", {})
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _no_file(path: Path) -> InvalidValue:
    return InvalidValue(
        f"{path} is no safetensors file",
        expected="a header in JSON",
        received="something else",
        action="name a file that a session left",
    )
