"""The `comity` command."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import typer

from comity import crash
from comity.cli.verbs.app import app
from comity.errors import ComityError, UsageError, of_system

# Each adds its verbs; in the order in which help shows what they are for.
for _name in ("try_it", "run", "look", "use", "set_up", "account", "there_is"):
    import_module(f"comity.cli.verbs.{_name}")

_WRONG_USAGE: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for a command line that it cannot read; it has no public name for all of them."""


def main() -> None:
    """Runs the command; an error is one line on standard error, and its class decides the exit code.

    An unexpected error is one line too, and a file that says more.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows another.
        getattr(stream, "reconfigure", _keep)(errors="replace")
    as_json = _wants_json()
    try:
        with _interrupted_by_signals():
            code = app(standalone_mode=not as_json)
        sys.exit(code if isinstance(code, int) else 0)
    except _WRONG_USAGE as error:
        # Only where JSON is wanted: typer prints it otherwise.
        message = str(getattr(error, "format_message", error.__str__)())
        _end(message, UsageError.exit_code, error=UsageError.reason(), message=message)
    except ComityError as error:
        _end(str(error), error.exit_code, error=error.reason(), message=str(error))
    except Exception as error:  # noqa: BLE001 - the last handler
        known = of_system(error) if isinstance(error, OSError) else None
        if known is not None:
            _end(str(known), known.exit_code, error=known.reason(), message=str(known))
        file = crash.write(error)
        where = f"{file} says more" if file is not None else "no file could be written that says more"
        line = f"this should not happen: {crash.described(error)}; please report it: {where}"
        _end(line, 1, error="UNEXPECTED", message=crash.described(error), crash_file=str(file) if file else None)


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Has SIGTERM and SIGHUP do what Ctrl-C does: the daemons that a command started end with it, its temporary files go."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            # What somebody has said already, such as nohup, holds.
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(line: str, code: int, **fields: str | None) -> NoReturn:
    if _wants_json():
        sys.stdout.write(json.dumps(fields) + "\n")
    sys.stderr.write(f"comity: {line}\n")
    sys.exit(code)


def _wants_json() -> bool:
    return not {"--json", "--jsonl"}.isdisjoint(sys.argv)


def _keep(**settings: Any) -> None:
    """For streams that have no settings."""
