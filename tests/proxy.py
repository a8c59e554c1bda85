"""A line that is cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from comity.transport.addresses import split_address

DEADLINE_S = 10.0


class Proxy:
    """Passes bytes between callers and an address; breaks the first connection after some.

    Args:
        target: Where it passes things on to.
        after: Bytes in the watched direction after which the first connection breaks.
        upstream: Whether the watched direction is the caller's.
        once: What must have happened, too, before it breaks.
    """

    def __init__(self, target: str, *, after: int, upstream: bool, once: threading.Event | None = None) -> None:
        self.passed: list[int] = []
        """Bytes that went in the watched direction, by connection."""
        self._target = target
        self._after = after
        self._upstream = upstream
        self._once = once
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def stop(self) -> None:
        """Breaks every connection and returns when nothing is left of them."""
        for end in (self._listener, *self._ends):
            _shut_down(end)
        # Threads start threads: the list grows until the listener is gone.
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=target, args=args))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller = self._listener.accept()[0]
                self._ends.append(caller)
                target = socket.create_connection(split_address(self._target))
                self._ends.append(target)
                self.passed.append(0)
                number = len(self.passed) - 1
                self._start(self._pump, caller, target, number, self._upstream)
                self._start(self._pump, target, caller, number, not self._upstream)

    def _pump(self, source: socket.socket, sink: socket.socket, number: int, watched: bool) -> None:
        """Passes bytes on until one side is gone or the connection is to break; then nothing passes either way."""
        with suppress(OSError):
            while data := source.recv(65536):
                if watched:
                    self.passed[number] += len(data)
                    if number == 0 and self.passed[0] > self._after:
                        if self._once is not None:
                            self._once.wait(DEADLINE_S)
                        break
                sink.sendall(data)
        _shut_down(source)
        _shut_down(sink)


def _shut_down(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
