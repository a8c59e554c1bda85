"""Processes that end when whoever started them has ended, in whatever way."""

from __future__ import annotations

import ctypes
import os
import sys

_SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def end_with_parent(number: int, parent: int | None = None) -> None:
    """Has this process be sent a signal once its parent has ended; only Linux has such a thing.

    Args:
        number: Of the signal.
        parent: Who started it, where that is known: it may have ended before this is called.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, number)
    if parent not in {None, os.getppid()}:
        os.kill(os.getpid(), number)
