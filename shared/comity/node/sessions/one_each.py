"""What takes long, and is done for each party once at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from comity.errors import TooManyCalls


class OneEach:
    """Lets each party have one thing done at a time: what one asks does not take the threads that serve the others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    @contextmanager
    def of(self, party: str) -> Iterator[None]:
        """Counts as a party's one until the block is left.

        Raises:
            TooManyCalls: It has one; honest nodes ask again in a moment.
        """
        with self._lock:
            if party in self._busy:
                raise TooManyCalls(
                    f"a proposal or draft of {party} is being tried",
                    expected="one at a time",
                    received="another",
                    action="ask again when its answer is there",
                )
            self._busy.add(party)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(party)
