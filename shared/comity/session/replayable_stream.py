"""A log that others follow from any index, while it grows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

_POLL_S = 0.5
"""How often a follower looks whether whom it follows for is still there."""


class ReplayableStream(Generic[Item]):
    """Items in the order in which they came, and whether more will come.

    One thread appends; any number of threads watch. A watcher that is cut off comes back with the number of items that
    it has, so a cut loses nothing.
    """

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        """Number of items so far."""
        return len(self._items)

    def __getitem__(self, index: int) -> Item:
        """The item at `index`."""
        return self._items[index]

    @property
    def closed(self) -> bool:
        """Whether no more items will come."""
        return self._closed

    def append(self, item: Item) -> None:
        """Adds an item and wakes the watchers."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """Says that no more items will come; with `error`, that watchers end with it. The first call counts."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._error = error
            self._changed.notify_all()

    def watch(self, skip: int = 0, *, is_active: Callable[[], bool] = lambda: True) -> Iterator[Item]:
        """Yields the items from index `skip` on, waiting for more until the log is closed.

        Args:
            skip: Items that the caller has already.
            is_active: Whether anybody still wants the items; asked now and then while waiting.

        Raises:
            BaseException: What the log was closed with.
        """
        index = skip
        while True:
            with self._changed:
                while index >= len(self._items) and not self._closed:
                    if not is_active():
                        return
                    self._changed.wait(_POLL_S)
                items = self._items[index:]
                error = self._error
            if not items:
                if error is not None:
                    raise error
                return
            yield from items
            index += len(items)
