"""Logs: one line per thing that happens, key=value on a terminal, JSON otherwise, on standard error."""

from __future__ import annotations

import logging
import sys

import structlog
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from comity.session.events import Event

_log = structlog.get_logger()


def configure_logs(level: str = "info") -> None:
    """Sets the process's logs up.

    Args:
        level: `debug`, `info`, `warning` or `error`.
    """
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if terminal:
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event", "session", "round"])
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    set_on_retry_hooks([_log_retry])


def _log_retry(details: RetryDetails) -> None:
    """Logs why a call is made again, in the terms of its error."""
    _log.debug("call-tried-again", reason=str(details.caused_by), wait_s=details.wait_for)


def log_event(session: str, event: Event) -> None:
    """Logs what happened in a session, in one line: changes of its state, and at `debug` the steps between them."""
    fields = {name: value for name, value in event.fields.items() if isinstance(value, str | int | float)}
    # Only what goes on within a round is counted.
    level = logging.DEBUG if "index" in event.fields else logging.INFO
    _log.log(level, event.kind, session=session, round=event.round, **fields)
