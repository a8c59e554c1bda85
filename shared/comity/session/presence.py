"""Whether a peer answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from comity.errors import ComityError


def _ignore(error: ComityError | None) -> None:
    """Whom to tell of absences where none is given."""
    del error


class Presence:
    """Whether one peer answers: what carries the calls to it says so, and roles ask."""

    def __init__(self) -> None:
        self.on_change: Callable[[ComityError | None], None] = _ignore
        """Is told why the peer does not answer, once an absence; and None when it is back."""
        self._error: ComityError | None = None
        self._most_s: float | None = None

    @property
    def is_away(self) -> bool:
        """Whether the last call to the peer had no answer."""
        return self._error is not None

    def lost(self, error: ComityError) -> None:
        """Takes note that the peer does not answer."""
        if self._error is None:
            self._error = error
            self.on_change(error)

    def returned(self) -> None:
        """Takes note that it answers."""
        if self._error is not None:
            self._error = None
            self.on_change(None)

    def wait_s(self, most_s: float) -> float:
        """How long a call waits for the peer, in seconds.

        Args:
            most_s: How long the node's configuration lets it.
        """
        return most_s if self._most_s is None else min(most_s, self._most_s)

    @contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Has calls to the peer wait no longer than that while the body lasts."""
        before, self._most_s = self._most_s, seconds
        try:
            yield
        finally:
            self._most_s = before
