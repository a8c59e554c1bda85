"""Standard error that nobody waits for: a pipe that nobody reads stops no node."""

from __future__ import annotations

import io
import os
import threading
import time
from collections import deque
from datetime import UTC, datetime

import structlog

_MOST_BYTES = 2**20
"""What waits for whoever reads; beyond, new lines are lost, and counted."""
_LONGEST_LINE = 2**16
"""Letters of a line that is not whole, beyond which it goes as it is."""
_LAST_WORDS_S = 3.0
"""How long a process that ends leaves the reader for what is left, in seconds."""

_render = structlog.processors.JSONRenderer()


class SpooledStream(io.TextIOBase):
    """A text stream whose writes never wait, and never fail: a thread brings whole lines to a descriptor.

    Lines that there is no room for, or that the descriptor does not take, are lost; the next line that arrives says how many.

    Args:
        descriptor: Where lines go.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._begun = ""
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._lost = 0
        self._is_ending = False
        self._thread = threading.Thread(target=self._work, name="log-lines", daemon=True)
        self._thread.start()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """See `io.TextIOBase`."""
        return "utf-8"

    def writable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def isatty(self) -> bool:
        """See `io.IOBase`."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """See `io.IOBase`: what processes are given that this one starts."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Takes a text; lines go when they are whole."""
        with self._changed:
            *whole, self._begun = (self._begun + text).split("\n")
            if len(self._begun) > _LONGEST_LINE:
                # What only ever begins its line anew, as bars of progress do, has no end.
                whole.append(self._begun)
                self._begun = ""
            for each in whole:
                line = f"{each}\n".encode(errors="backslashreplace")
                if self._waiting + len(line) > _MOST_BYTES:
                    self._lost += 1
                    continue
                self._lines.append(line)
                self._waiting += len(line)
            if whole:
                self._changed.notify_all()
        return len(text)

    def end(self, within_s: float = _LAST_WORDS_S) -> None:
        """Waits until what is left has gone, for a while."""
        if self._begun:
            self.write("\n")
        deadline = time.monotonic() + within_s
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_ending)
                if not self._lines:
                    return
                lost, line = self._lost, self._lines[0]
            arrived = self._arrives((_told(lost) if lost else b"") + line)
            with self._changed:
                self._lines.popleft()
                self._waiting -= len(line)
                self._lost += -lost if arrived else 1

    def _arrives(self, data: bytes) -> bool:
        """Writes, for as long as that takes; a reader that is gone, or a full disk, takes nothing."""
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            return False
        return True


def _told(lost: int) -> bytes:
    fields = {
        "event": "log-lines-lost",
        "level": "warning",
        "lost": lost,
        "action": "have somebody read standard error, or configure logs.file",
        "timestamp": datetime.now(UTC).isoformat(),
    }
    return str(_render(None, "warning", fields)).encode() + b"\n"
