"""A line between two nodes that keeps what it carries, and that can break, stall, slow down or be away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from comity.transport.addresses import split_address
from tests.http2 import HEADERS, frames

DEADLINE_S = 10.0


class Cut(Exception):
    """The connection breaks here: what was to pass does not."""


@dataclass(eq=False)
class Connection:
    """What a connection carried.

    Attributes:
        number: Which it was, from 0 on.
        asked: What came from the caller.
        answered: What came back.
        is_silent: Whether nothing passes any more although it is open at both ends.
    """

    number: int
    asked: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)
    is_silent: bool = False


Fault = Callable[[Connection, bool, bytes], bytes]
"""Does harm to what is about to pass, from the caller or not: returns what passes, raises `Cut`, or makes it silent."""


class Proxy:
    """Passes bytes between callers and an address.

    Args:
        target: Where it passes things on to.
        fault: What harm it does; none if nothing is said.

    Attributes:
        address: Where it listens.
        connections: What it carried.
        fault: See above; may change at any time.
        is_away: Whether connections break at once, those too that are made meanwhile.
        is_mute: Whether connections carry nothing, those too that are made meanwhile.
        delay_s: How long each piece takes, in seconds.
        bytes_per_s: How many bytes pass a second in a direction; None for as many as can.
        harmed: Is set once a connection broke or fell silent.
    """

    def __init__(self, target: str, fault: Fault | None = None) -> None:
        self.connections: list[Connection] = []
        self.fault = fault
        self.is_away = False
        self.is_mute = False
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.harmed = threading.Event()
        self._target = target
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def asked(self) -> list[int]:
        """Bytes that callers sent, by connection."""
        return [len(each.asked) for each in self.connections]

    @property
    def answered(self) -> list[int]:
        """Bytes that came back, by connection."""
        return [len(each.answered) for each in self.connections]

    def cut(self) -> None:
        """Breaks every connection that there is."""
        for end in self._ends.copy():
            _shut_down(end)
        self.harmed.set()

    def hush(self) -> None:
        """Lets every connection that there is carry nothing any more, as a machine that lost its power."""
        for each in self.connections.copy():
            each.is_silent = True
        self.harmed.set()

    def stop(self) -> None:
        """Breaks every connection and returns when nothing is left of them."""
        self._stopped.set()
        for end in (self._listener, *self._ends):
            _shut_down(end)
        # Threads start threads: the list grows until the listener is gone.
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=target, args=args, name="proxy"))
        self._threads[-1].start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                caller = self._listener.accept()[0]
            except OSError:
                return
            self._ends.append(caller)
            if self.is_away:
                _shut_down(caller)
                continue
            try:
                target = socket.create_connection(split_address(self._target))
            except OSError:
                # Nobody is there, as a caller without a proxy would find.
                _shut_down(caller)
                continue
            self._ends.append(target)
            connection = Connection(len(self.connections), is_silent=self.is_mute)
            self.connections.append(connection)
            self._start(self._pump, caller, target, connection, True)
            self._start(self._pump, target, caller, connection, False)

    def _pump(self, source: socket.socket, sink: socket.socket, connection: Connection, upstream: bool) -> None:
        """Passes bytes on until one side is gone or the connection breaks; then nothing passes either way."""
        carried = connection.asked if upstream else connection.answered
        with suppress(OSError):
            while data := source.recv(65536):
                if not connection.is_silent:
                    try:
                        passing = data if self.fault is None else self.fault(connection, upstream, data)
                    except Cut:
                        carried += data
                        self.harmed.set()
                        break
                    carried += data
                    self._stopped.wait(self.delay_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0.0))
                    sink.sendall(passing)
                    if connection.is_silent:
                        self.harmed.set()
        if not connection.is_silent or self._stopped.is_set():
            _shut_down(source)
            _shut_down(sink)


def cut_after(count: int, *, upstream: bool, once: threading.Event | None = None, times: int = 1) -> Fault:
    """Breaks the connection over which so many bytes went in a direction, those before it included.

    Args:
        count: Bytes that pass.
        upstream: Whether those from the caller count, or those that come back.
        once: What must have happened, too, before it breaks.
        times: How often a connection breaks, each time after as many bytes.
    """
    lock, passed, left = threading.Lock(), 0, times

    def fault(connection: Connection, is_upstream: bool, data: bytes) -> bytes:
        nonlocal passed, left
        del connection
        with lock:
            if is_upstream is not upstream or not left:
                return data
            passed += len(data)
            if passed <= count:
                return data
            passed, left = 0, left - 1
        if once is not None:
            once.wait(DEADLINE_S)
        raise Cut

    return fault


def stalled_after_headers(answers: int) -> Fault:
    """Has the headers of so many answers pass, and nothing of what follows the last of them on its connection."""
    lock, left = threading.Lock(), answers

    def fault(connection: Connection, is_upstream: bool, data: bytes) -> bytes:
        nonlocal left
        if is_upstream:
            return data
        before, whole, end = len(connection.answered), bytes(connection.answered) + data, 0
        for kind, _, _, payload in frames(whole):
            end += 9 + len(payload)
            # Those that ended before were counted then.
            if kind == HEADERS and end > before:
                with lock:
                    left -= 1
                    is_last = left == 0
                if is_last:
                    connection.is_silent = True
                    return whole[before:end]
        return data

    return fault


@contextmanager
def proxying(target: str) -> Iterator[Proxy]:
    """A proxy that does no harm, while the body lasts."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.stop()


def _shut_down(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
