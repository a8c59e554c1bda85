"""Files of text, however they are encoded."""

from __future__ import annotations

import codecs
from pathlib import Path

from comity.errors import InvalidValue, MissingFile

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    # Before UTF-16, with whose mark it begins.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""What a text may begin with, and the encoding that it says."""


def read_text(path: Path, encoding: str | None = None) -> str:
    """A text, without the mark that some editors begin it with, its lines ended by line feeds alone.

    Args:
        path: The file.
        encoding: How it is encoded; None for what its mark says, or else UTF-8.

    Raises:
        MissingFile: It is not there.
        InvalidValue: It is encoded otherwise.
    """
    if not path.is_file():
        raise MissingFile(
            "The file of text",
            expected="a file",
            received=path,
            action="correct `source`, or `root`, which a relative path starts from",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read", received=error.strerror, action="look at its rights") from error
    return decoded(data, path, encoding)


def decoded(data: bytes, path: Path, encoding: str | None = None) -> str:
    """The text that bytes are; see `read_text`."""
    used = encoding or next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(used)
    except (UnicodeDecodeError, LookupError) as error:
        raise InvalidValue(
            f"{path} is no text in {used}",
            expected="UTF-8, or encoding in [data.table]" if encoding is None else "an encoding that fits",
            received=str(error)[:200],
            action='save it in UTF-8, or name its encoding, for example encoding = "latin-1"',
        ) from error
    if "\0" in text:
        raise InvalidValue(
            f"{path} is no text in {used}", expected="text", received="zero bytes", action="save it in UTF-8"
        )
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
