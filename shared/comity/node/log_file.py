"""A file for the log, which is put aside when it is long, so that the disk is never full of it."""

from __future__ import annotations

import errno
import logging
import os
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

from comity.errors import InvalidValue

_render = structlog.processors.JSONRenderer()


class RotatingFile(RotatingFileHandler):
    """A line of JSON for each thing that happens, for the node's own user alone.

    Args:
        path: The file.
        max_bytes: How long it gets.
        keep: How many are put aside, as `path.1`, `path.2` and so on; older ones are removed.

    Raises:
        InvalidValue: It cannot be written to.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            super().__init__(path, maxBytes=max_bytes, backupCount=keep, encoding="utf-8")
        except OSError as error:
            raise InvalidValue(
                f"logs.file {path} cannot be used",
                expected="a file that this user may write",
                received=error.strerror or error,
                action="make its folder writable, or configure another file",
            ) from error
        self._is_broken = False

    def _open(self) -> TextIOWrapper:
        if Path(self.baseFilename).is_fifo():
            # Whoever logs would wait for somebody to read it.
            raise OSError(errno.EINVAL, "a named pipe")
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding=self.encoding)

    def keep(self, logger: object, method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Writes a line, on its way to standard error; a processor of structlog."""
        line = str(_render(logger, method, dict(fields)))
        self.handle(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))
        return fields

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Says once that nothing is written any more, as on a full disk; standard error still has every line."""
        del record
        if not self._is_broken:
            self._is_broken = True
            fields = {"event": "log-file-not-written", "level": "warning", "error": str(sys.exc_info()[1])}
            print(_render(None, "warning", fields), file=sys.stderr)  # noqa: T201 - where the log goes as well
