"""Points at which a node can be made to die, so that tests can see what survives.

Every durable write and every message passes one. Nothing happens there unless a test installs a hook, or the process was
started with `COMITY_FAULT=phase:n`: then it kills itself at the n-th time that it passes a point of that phase.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable

FaultPoint = str
"""What is done at a point; a protocol's roles name theirs."""

EVERYWHERE = ("transfer", "commit", "receipt")
"""Points that every session passes: something leaves or comes, is kept, is signed for."""

ENVIRONMENT = "COMITY_FAULT"

Hook = Callable[[FaultPoint], None]


def _nothing(phase: FaultPoint) -> None:
    del phase


_hook: Hook = _nothing


def point(phase: FaultPoint) -> None:
    """Marks a place at which a node must be able to die."""
    _hook(phase)


def install(hook: Hook | None) -> None:
    """Calls `hook` at every point from now on; None for nothing."""
    global _hook  # noqa: PLW0603 - one process, one hook; threaded through every call it would be all there is to see
    _hook = hook or _nothing


def install_from_environment() -> None:
    """Installs what the environment asks for."""
    wanted = os.environ.get(ENVIRONMENT, "")
    if not wanted:
        return
    phase, _, number = wanted.partition(":")
    counter = itertools.count(1)

    def kill(passed: FaultPoint) -> None:
        if passed == phase and next(counter) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    install(kill)
