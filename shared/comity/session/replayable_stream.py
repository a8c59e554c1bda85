"""A stream of items that others follow from any index, while it grows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class StreamEnd(Exception):
    """A stream is over. No error: its reader has everything."""


class _Withdrawn:
    """Stands where an item was that is of no use any more."""


_WITHDRAWN = _Withdrawn()


class ReplayableStream(Generic[Item]):
    """Items in the order in which they came, and whether more will come.

    One thread appends; any number follow: those that `watch` wait, those that `subscribe` are called and `read`. A follower
    that is cut off comes back with the number of items that it has, so a cut loses nothing.
    """

    def __init__(self) -> None:
        self._items: list[Item | _Withdrawn] = []
        # Everything before it was withdrawn.
        self._floor = 0
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self._subscribers: dict[object, Callable[[], None]] = {}

    def __len__(self) -> int:
        """Number of items so far."""
        return len(self._items)

    def __getitem__(self, index: int) -> Item:
        """The item at `index`."""
        item = self._items[index]
        if isinstance(item, _Withdrawn):
            raise IndexError(index)
        return item

    @property
    def closed(self) -> bool:
        """Whether no more items will come."""
        return self._closed

    @property
    def is_followed(self) -> bool:
        """Whether it has subscribers."""
        return bool(self._subscribers)

    def append(self, item: Item) -> None:
        """Adds an item and wakes the followers."""
        with self._changed:
            self._items.append(item)
        self._wake()

    def show(self, items: Sequence[Item]) -> None:
        """Makes these, in their order, all that a follower has yet to know: others are withdrawn, new ones added.

        Who has read an item already is not told again.
        """
        with self._changed:
            shown = self._items[self._floor :]
            self._items[self._floor :] = [item if item in items else _WITHDRAWN for item in shown]
            self._items += [item for item in items if item not in shown]
            while self._floor < len(self._items) and isinstance(self._items[self._floor], _Withdrawn):
                self._floor += 1
        self._wake()

    def close(self, error: BaseException | None = None) -> None:
        """Says that no more items will come; with `error`, that followers end with it. The first call counts."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._error = error
        self._wake()

    def subscribe(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Has something called whenever there may be something to read; returns what ends that.

        It is called from the thread that appends, and must return at once.
        """
        key = object()
        with self._changed:
            self._subscribers[key] = notify

        def end() -> None:
            with self._changed:
                self._subscribers.pop(key, None)

        return end

    def read(self, index: int) -> tuple[Item, int] | None:
        """The first item from `index` on, and the index after it; None where there is none yet.

        Raises:
            StreamEnd: There will be none.
            BaseException: What the stream was closed with.
        """
        with self._changed:
            index = max(index, self._floor)
            while index < len(self._items):
                item = self._items[index]
                index += 1
                if not isinstance(item, _Withdrawn):
                    return item, index
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StreamEnd
        return None

    def watch(self, skip: int = 0) -> Iterator[Item]:
        """Yields the items from index `skip` on, waiting for more until the stream is closed.

        Raises:
            BaseException: What the stream was closed with.
        """
        index = skip
        while True:
            try:
                with self._changed:
                    while (found := self.read(index)) is None:
                        self._changed.wait()
            except StreamEnd:
                return
            item, index = found
            yield item

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
            subscribers = list(self._subscribers.values())
        for notify in subscribers:
            notify()
