"""Commands that start daemons and are ended from outside: what they started ends with them, by itself where it must."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGHUP, signal.SIGKILL))],
)
@pytest.mark.parametrize(
    ("typed", "daemons"), [(["bench", "load", "--quick"], 1), pytest.param(["demo"], 2, marks=pytest.mark.slow)]
)
def test_a_command_that_is_ended_takes_along_what_it_started(
    typed: list[str],
    daemons: int,
    number: signal.Signals,
    comity: Any,
    marked: Callable[[str], list[psutil.Process]],
    wait_until: Callable[..., None],
    short_path: Path,
) -> None:
    with comity.begun(*typed, cwd=short_path, TMPDIR=str(short_path)) as (process, mark):
        sockets = "comity-*/*/state/control.sock"
        wait_until(lambda: len(list(short_path.glob(sockets))) == daemons, "the daemons serve", deadline_s=120)
        process.send_signal(number)
        assert process.wait(30) != 0
        wait_until(lambda: not marked(mark), "all that it started has ended", deadline_s=60)
    # Nobody is left to remove them after SIGKILL; a daemon removes its own socket.
    assert not list(short_path.glob("comity-*" if number != signal.SIGKILL else sockets))
