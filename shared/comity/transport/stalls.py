"""Transfers that stand still, or creep: each holds a thread of the server, so they are cut after a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from comity.session.limits import Limits

log = structlog.get_logger()


@dataclass(eq=False)
class _Transfer:
    """A call whose messages come or go one by one."""

    context: grpc.ServicerContext
    ends: float


class Stalls:
    """Cuts calls whose messages come, or are taken, too slowly.

    Args:
        limits: How slowly that is.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._changed = threading.Condition()
        self._transfers: set[_Transfer] = set()
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    @contextmanager
    def watched(self, context: grpc.ServicerContext) -> Iterator[Callable[[Any], Any]]:
        """Cuts a call unless what it moves is passed through what this gives, fast enough."""
        transfer = _Transfer(context, time.monotonic() + self.limits.grace_s)

        def passed(message: Any) -> Any:
            if self.limits.slowest and isinstance(message, bytes | memoryview):
                transfer.ends += len(message) / self.limits.slowest
            return message

        with self._changed:
            self._transfers.add(transfer)
            if self._thread is None and not self._is_stopped:
                self._thread = threading.Thread(target=self._watch, name="stalls", daemon=True)
                self._thread.start()
        try:
            yield passed
        finally:
            with self._changed:
                self._transfers.discard(transfer)

    def stop(self) -> None:
        """Cuts nothing any more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        with self._changed:
            while not self._is_stopped:
                late = [each for each in self._transfers if each.ends < time.monotonic()]
                for each in late:
                    log.warning("transfer-cut", peer=each.context.peer(), why="it moves too little")
                    self._transfers.discard(each)
                    each.context.cancel()
                self._changed.wait(min(1.0, self.limits.grace_s / 4))
