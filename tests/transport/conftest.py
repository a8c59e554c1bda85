"""What the transport's tests share: certificates, echoing servers, and a line that is cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from comity.transport.certificates import Authority
from comity.transport.diagnosis import split_address
from comity.transport.identity import Identity
from comity.transport.server import NodeServer

METHOD = "/test.Echo/Call"
DEADLINE_S = 10.0


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Who certifies clinic and hospital."""
    return Authority.create()


@pytest.fixture
def issue(authority: Authority, tmp_path: Path) -> Callable[..., Identity]:
    """Issues a party's certificate, by another authority where one is given."""

    def make(party: str, by: Authority = authority) -> Identity:
        return by.issue(party, tmp_path / f"{party}-{id(by)}")

    return make


@dataclass(frozen=True)
class Echo:
    """A server with one method, whose behavior a test gives."""

    address: str
    server: NodeServer


@pytest.fixture
def echo() -> Iterator[Callable[..., Echo]]:
    """Serves one method that takes and gives bytes."""
    with ExitStack() as stack:

        def start(
            behavior: Callable[[bytes, grpc.ServicerContext], bytes] = lambda request, context: request,
            *,
            identity: Identity | None = None,
            address: str = "127.0.0.1:0",
        ) -> Echo:
            server = NodeServer(identity, ["test.Echo"])
            handler = grpc.unary_unary_rpc_method_handler(behavior)
            service = grpc.method_handlers_generic_handler("test.Echo", {"Call": handler})
            server.server.add_generic_rpc_handlers((service,))
            bound = server.start(address)
            stack.callback(server.stop, 0)
            return Echo(bound, server)

        yield start


@pytest.fixture
def method() -> Callable[[grpc.Channel], Any]:
    """The client's end of that method."""
    return lambda channel: channel.unary_unary(METHOD)


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


@pytest.fixture
def cut() -> Iterator[Callable[..., Proxy]]:
    """Puts a proxy before an address, whose first connection breaks."""
    with ExitStack() as stack:

        def start(target: str, *, after: int, upstream: bool, once: threading.Event | None = None) -> Proxy:
            proxy = Proxy(target, after=after, upstream=upstream, once=once)
            stack.callback(proxy.stop)
            return proxy

        yield start


@pytest.fixture
def free_address() -> str:
    """An address of loopback at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"
