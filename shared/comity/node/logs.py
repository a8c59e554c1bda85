"""Logs: one line per thing that happens, key=value on a terminal, JSON otherwise, on standard error."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

import structlog
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from comity import crash
from comity.node.log_file import RotatingFile
from comity.session import log_context
from comity.session.events import Event

_log = structlog.get_logger()


def configure_logs(level: str = "info", folder: Path | None = None, file: RotatingFile | None = None) -> None:
    """Sets the process's logs up.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        folder: Where the files go that say more of what should not happen; None for the system's temporary folder.
        file: Where lines go beside standard error; None for nowhere.
    """
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if terminal:
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event", "session", "round"])
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _round_of_its_session,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _crash_file(folder),
            *([] if file is None else [file.keep]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    set_on_retry_hooks([_log_retry])


def _round_of_its_session(
    logger: object, method: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Has each line that is about an active session say in which round that is."""
    del logger, method
    session = fields.get("session")
    if isinstance(session, str) and "round" not in fields:
        round = log_context.round_of(session)
        if round is not None:
            fields["round"] = round
    return fields


def _crash_file(folder: Path | None) -> structlog.typing.Processor:
    """Keeps tracebacks out of the log: an error is told in a line, and a file says more."""

    def keep(logger: object, method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        del logger, method
        found = fields.pop("exc_info", None)
        if found is True:
            found = sys.exc_info()[1]
        elif isinstance(found, tuple):
            found = found[1]
        if isinstance(found, BaseException):
            file = crash.write(found, folder)
            fields["unexpected"] = crash.described(found)
            fields["crash_file"] = str(file) if file is not None else None
        return fields

    return keep


def catch_all() -> None:
    """Has what no thread caught be a line of the log, with a file that says more."""
    sys.excepthook = lambda _kind, error, _trace: _log.critical("node-broken", exc_info=error)

    def in_a_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_type is not SystemExit:
            name = failed.thread.name if failed.thread is not None else None
            _log.critical("thread-broken", thread=name, exc_info=failed.exc_value)

    threading.excepthook = in_a_thread


def _log_retry(details: RetryDetails) -> None:
    """Logs why a call is made again, in the terms of its error."""
    _log.debug("call-tried-again", reason=str(details.caused_by), wait_s=details.wait_for)


def log_event(session: str, event: Event) -> None:
    """Logs what happened in a session, in one line: changes of its state, and at `debug` the steps between them."""
    fields = {name: value for name, value in event.fields.items() if isinstance(value, str | int | float)}
    # Only what goes on within a round is counted.
    level = logging.DEBUG if "index" in event.fields else logging.INFO
    _log.log(level, event.kind, session=session, round=event.round, **fields)
