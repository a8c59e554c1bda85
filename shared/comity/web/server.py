"""Serves routes on loopback or a Unix socket, in a thread beside whatever else the process does."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import h11
import uvicorn
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute, Router
from uvicorn.protocols.http.h11_impl import H11Protocol

from comity.errors import AddressInUse, InvalidValue
from comity.transport.addresses import is_loopback, split_address
from comity.transport.retry import SLOWEST_BYTES_PER_S
from comity.web.entrance import Entrance
from comity.web.token import new_token

_UNIX = "unix:"
_GRACE_S = 5
"""How long requests may take when the server is stopped, in seconds."""
_MOST_AT_ONCE = 64
"""Requests and open streams at a time; one more is answered 503."""
_MAX_BODY = 1 << 20
_SILENT_S = 15.0
"""How long a connection may be in the middle of a request, or without any, in seconds, and at most as long again: each is one
of those at a time, of whoever is on this machine, with the token or without."""
_LEAST_READ = 4096
"""How much of an answer that waits for its caller it reads between two looks, in bytes."""
_BODY_S = 60.0
"""How long a body may take that comes all the while, in seconds, beside what it takes at the slowest."""


@dataclass(frozen=True, slots=True)
class Served:
    """Where routes are served.

    Attributes:
        address: `host:port` or `unix:PATH`.
        token: Without which nobody is let in.
    """

    address: str
    token: str = field(repr=False)

    @property
    def url(self) -> str:
        """What to open: it has the token in it."""
        host = "localhost" if self.address.startswith(_UNIX) else self.address
        return f"http://{host}/{self.token}/"


@dataclass(frozen=True, slots=True)
class _Look:
    """How far a connection was when somebody looked.

    Attributes:
        state: What comes: a request, or its body.
        cycle: Of which request; each has its own.
        since: When that was first seen, on the monotonic clock.
        first: How many bytes had come by then.
        bytes: How many have come.
        unread: How many wait for a caller that does not read; 0 while it does.
    """

    state: object
    cycle: object
    since: float
    first: int
    bytes: int
    unread: int = 0


class _Connection(H11Protocol):
    """A connection that is closed where its caller says nothing: uvicorn itself waits for a request for ever.

    A body may come slowly, as long as it comes, and not for ever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._received = 0
        self._look(None)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += len(data)
        super().data_received(data)

    def _look(self, before: _Look | None) -> None:
        """Closes it, if too little has come since the last look of the request that it waits for."""
        now = self._waits_for(before)
        if now is not None and before is not None and self._is_too_slow(now, before):
            # At once: what it does not read would have to leave first.
            self.transport.abort()
        elif not self.transport.is_closing():
            self.loop.call_later(_SILENT_S, self._look, now)

    def _waits_for(self, before: _Look | None) -> _Look | None:
        """What it waits for; None where it is this side's turn, also to read on."""
        state, received = self.conn.their_state, self._received
        if self.flow.write_paused:
            return _Look(
                state, self.cycle, time.monotonic(), received, received, self.transport.get_write_buffer_size()
            )
        if state not in {h11.IDLE, h11.SEND_BODY} or self.flow.read_paused:
            return None
        if before is not None and (before.state, before.cycle) == (state, self.cycle):
            return replace(before, bytes=received)
        return _Look(state, self.cycle, time.monotonic(), received, received)

    def _is_too_slow(self, now: _Look, before: _Look) -> bool:
        if now.unread:
            # What is more than before was written since: the caller had read all that there was.
            return 0 <= before.unread - now.unread < _LEAST_READ
        if now.since != before.since:
            return False
        may_take_s = _BODY_S + (now.bytes - now.first) / SLOWEST_BYTES_PER_S
        comes = now.state is h11.SEND_BODY and now.bytes > before.bytes
        return not comes or time.monotonic() - now.since > may_take_s


class _Server:
    """uvicorn in a thread.

    Args:
        entrance: What is served.
        bound: Where.
    """

    def __init__(self, entrance: Entrance, bound: socket.socket) -> None:
        config = uvicorn.Config(
            entrance,
            http=_Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            # The process's logs are its own.
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_MOST_AT_ONCE,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._entrance = entrance
        self._server = uvicorn.Server(config)
        self._bound = bound
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._running.wait()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._running.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running.set()
        await self._server.serve(sockets=[self._bound])

    def _end(self) -> None:
        # Streams first: uvicorn waits for what is open.
        self._entrance.stopping.set()
        self._server.should_exit = True

    def stop(self) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end)
        self._thread.join()
        self._bound.close()


@contextmanager
def serving(
    routes: Sequence[BaseRoute], listen: str, token: str | None = None, *, max_body: int = _MAX_BODY
) -> Iterator[Served]:
    """Serves routes until the block is left.

    Handlers may be plain functions, which run in threads of a pool, or coroutines. An error of Comity's tree that one
    raises becomes its status and one line.

    Args:
        routes: What is served, below `/TOKEN/`: a page names its files and requests by relative addresses.
        listen: `host:port` on loopback, with port 0 for any free one, or `unix:PATH`.
        token: Without which nobody is let in; None for a new one.
        max_body: Longest body of a request, in bytes.

    Yields:
        Where.

    Raises:
        InvalidValue: It is no address, or others than this machine could reach it.
        AddressInUse: The address is in use.
    """
    bound = _bound(listen)
    kept = token or new_token()
    server = _Server(Entrance(ExceptionMiddleware(Router(list(routes))), kept, max_body), bound)
    server.start()
    try:
        yield Served(_address(listen, bound), kept)
    finally:
        server.stop()
        if listen.startswith(_UNIX):
            Path(listen.removeprefix(_UNIX)).unlink(missing_ok=True)


def _address(listen: str, bound: socket.socket) -> str:
    return listen if listen.startswith(_UNIX) else f"{listen.rpartition(':')[0]}:{bound.getsockname()[1]}"


def _bound(listen: str) -> socket.socket:
    if listen.startswith(_UNIX):
        return _bound_to_path(Path(listen.removeprefix(_UNIX)))
    host, port = split_address(listen)
    if not is_loopback(listen):
        raise InvalidValue(
            "pages are for their own machine",
            expected="127.0.0.1:port, or unix:PATH",
            received=listen,
            action="listen on loopback, and reach it from elsewhere through ssh -L",
        )
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return _listening(made, (host, port), listen)


def _bound_to_path(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    with socket.socket(socket.AF_UNIX) as probe:
        if path.is_socket() and probe.connect_ex(str(path)) != 0:
            # A process that was killed left it.
            path.unlink(missing_ok=True)
    listening = _listening(made, str(path), f"{_UNIX}{path}")
    path.chmod(0o600)
    return listening


def _listening(made: socket.socket, place: tuple[str, int] | str, listen: str) -> socket.socket:
    try:
        made.bind(place)
        made.listen()
    except OSError as error:
        made.close()
        in_use = error.errno == errno.EADDRINUSE
        action = "stop what listens there, or configure another port" if in_use else "configure another address"
        raise AddressInUse(
            "the page cannot be served",
            expected="a free address of this machine",
            received=f"{listen}: {error.strerror or error}",
            action=action,
        ) from error
    return made
