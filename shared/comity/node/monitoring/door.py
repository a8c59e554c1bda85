"""Serves `/metrics` over HTTP, to this machine alone where nothing else is configured."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from comity.errors import AddressInUse, ComityError, InvalidValue
from comity.node.config_sections import MetricsConfig
from comity.transport.addresses import is_loopback, split_address

log = structlog.get_logger()

PATH = "/metrics"
_PATIENCE_S = 10.0
"""How long a scraper may take to say what it wants and to be told, in seconds."""
_MOST_AT_ONCE = 8

Start = Callable[[str, list[tuple[str, str]]], Any]


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: a scraper comes every few seconds."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, place: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__(place, _Handler)

    def server_bind(self) -> None:
        """Binds; without the look-up of this machine's name that the standard server makes, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Takes a connection, where there are not too many already."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers, and makes room for another; who sends or reads a byte now and then is cut off like who does nothing."""
        limit = threading.Timer(_PATIENCE_S, _cut, [request])
        limit.daemon = True
        limit.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            limit.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a scraper went away."""


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def application(registry: CollectorRegistry) -> Callable[[dict[str, Any], Start], list[bytes]]:
    """What answers requests: the metrics, or why there are none just now."""
    answer = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start: Start) -> list[bytes]:
        if environ.get("PATH_INFO") != PATH:
            return _plain(start, "404 Not Found", f"metrics are at {PATH}")
        if environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
            return _plain(start, "405 Method Not Allowed", "metrics are read with GET")
        try:
            found: list[bytes] = list(answer(environ, start))
        except ComityError as error:
            log.warning("metrics-not-read", error=str(error))
            return _plain(start, "503 Service Unavailable", "the node's log says why")
        except Exception as error:
            log.exception("metrics-not-read", error=str(error))
            return _plain(start, "500 Internal Server Error", "the node's log says why")
        return found

    return app


def _plain(start: Start, status: str, text: str) -> list[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]


@contextmanager
def serving(registry: CollectorRegistry, settings: MetricsConfig) -> Iterator[str]:
    """Serves metrics, in a thread beside whatever else the process does.

    Yields:
        Where: `host:port`.

    Raises:
        InvalidValue: It is no address, or others than this machine could reach it unasked.
        AddressInUse: The address is in use.
    """
    host, port = split_address(settings.listen)
    if not is_loopback(settings.listen) and not settings.expose:
        raise InvalidValue(
            "metrics are for this machine",
            expected="127.0.0.1:port",
            received=settings.listen,
            action="listen on loopback; or set metrics.expose = true, where all who reach the address may read them",
        )
    try:
        server = _Server((host, port))
    except OSError as error:
        raise AddressInUse(
            "metrics cannot be served",
            expected="a free address of this machine",
            received=f"{settings.listen}: {error.strerror or error}",
            action="stop what listens there, or configure another metrics.listen",
        ) from error
    server.set_app(application(registry))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"{settings.listen.rpartition(':')[0]}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
