"""The process from which the daemons of one machine are forked: it has imported what they need."""

from __future__ import annotations

import multiprocessing
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext


@cache
def context() -> ForkServerContext:
    """How processes are made."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["comity.simulation.preloaded"])
    return made


def begin() -> None:
    """Starts it, if it does not run; it imports while the caller does something else."""
    context()
    forkserver.ensure_running()
