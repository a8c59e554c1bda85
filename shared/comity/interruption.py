"""Long work that can be stopped between two of its steps.

Whoever has work done in a thread says there how it is told that the work is not wanted any more; what takes long, such as
a training, passes a point between two steps. So a session that has ended costs no more than a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic


class Interrupted(BaseException):
    """The work is not wanted any more. No error: what handles those must not take it for one."""


class TookTooLong(Exception):
    """The work has taken longer than whoever wants it gives it; they go on without."""


def _nothing() -> None:
    """For work that is not stopped."""


_check: ContextVar[Callable[[], None]] = ContextVar("interruption", default=_nothing)


def point() -> None:
    """Marks a place between two steps of long work, a batch of a training for example.

    Raises:
        Interrupted: The work is not wanted any more.
        ComityError: It has taken longer than it may.
    """
    _check.get()()


@contextmanager
def checked(check: Callable[[], None]) -> Iterator[None]:
    """Has `check` called at every point that this thread passes while the body lasts; it raises to stop the work."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Has work in the body stop at its next point once it has taken so long, beside whatever else stops it.

    Raises:
        TookTooLong: It took longer.
    """
    outer, end = _check.get(), monotonic() + seconds

    def check() -> None:
        outer()
        if monotonic() > end:
            raise TookTooLong

    with checked(check):
        yield
