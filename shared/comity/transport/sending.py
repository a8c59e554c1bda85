"""What a caller does beside its calls: sending in order while it works, looking ahead."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from comity.errors import NodeDraining
from comity.session.replayable_stream import ReplayableStream

Item = TypeVar("Item")

_UNSENT = 2
"""What may wait for the network before whoever makes it waits for it."""


class OrderedSender:
    """A thread that sends what it is given, in order; after a failure it sends nothing more.

    Whoever gives it more than may wait, waits.
    """

    def __init__(self) -> None:
        self._items: queue.Queue[Callable[[], object] | None] = queue.Queue(_UNSENT)
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="send-ahead", daemon=True)
        self._thread.start()

    def put(self, send: Callable[[], object]) -> None:
        """Has something sent; raises what an earlier one failed with."""
        if self._failure is not None:
            raise self._failure
        self._items.put(send)

    def finish(self) -> None:
        """Waits until everything is sent; raises what failed."""
        self._items.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Ends the thread without sending what is left."""
        self._failure = self._failure or NodeDraining("the line is closed", action="run the session again")
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._items.put(None, timeout=0.1)
            self._thread.join(0.1)

    def _work(self) -> None:
        while (send := self._items.get()) is not None:
            if self._failure is None:
                try:
                    send()
                except Exception as error:  # noqa: BLE001 - raised by the next `put` or `finish`
                    self._failure = error


def ahead(items: Callable[[], Iterator[Item]], meanwhile: Callable[[], bool]) -> Iterator[Item]:
    """Follows items in a thread of its own, while the caller works on those that have come.

    Args:
        items: Begins to follow them.
        meanwhile: Does a piece of other work while nothing has come yet; False when there is none.

    Raises:
        BaseException: What following them ended with.
    """
    arrived: ReplayableStream[Item] = ReplayableStream()
    active = threading.Event()
    active.set()

    def follow() -> None:
        try:
            for item in items():
                if not active.is_set():
                    break
                arrived.append(item)
            arrived.close()
        except Exception as error:  # noqa: BLE001 - it belongs to the caller, in another thread
            arrived.close(error)

    threading.Thread(target=follow, name="follow-ahead", daemon=True).start()
    try:
        index = 0
        while True:
            while index >= len(arrived) and not arrived.closed:
                if not meanwhile():
                    break
            following = next(arrived.watch(index), None)
            if following is None:
                return
            yield following
            index += 1
    finally:
        active.clear()
