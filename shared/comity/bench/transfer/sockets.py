"""The baseline: the same bytes over a bare socket into a buffer that is there already."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Self

from comity.transport.identity import Identity

_UPLOAD, _DOWNLOAD, _DONE = b"u", b"d", b"."


def server_context(identity: Identity) -> ssl.SSLContext:
    """TLS for a server that takes calls of trusted parties only."""
    return _with_files(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), identity)


def client_context(identity: Identity) -> ssl.SSLContext:
    """TLS for calls to trusted parties."""
    return _with_files(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), identity)


def _with_files(context: ssl.SSLContext, identity: Identity) -> ssl.SSLContext:
    if identity.certificate is None or identity.trust is None:
        raise ValueError("TLS needs certificates")
    context.load_cert_chain(identity.certificate, identity.key)
    context.load_verify_locations(identity.trust)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def serve(size: int, context: ssl.SSLContext | None) -> int:
    """Copies for one client, in a thread that ends with the client; returns the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        with listener:
            accepted, _ = listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = memoryview(bytearray(size))
        with accepted if context is None else context.wrap_socket(accepted, server_side=True) as connection:
            while wanted := connection.recv(1):
                if wanted == _UPLOAD:
                    _receive(connection, buffer)
                    connection.sendall(_DONE)
                else:
                    connection.sendall(buffer)

    threading.Thread(target=work, name="raw-copy", daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


class RawCopy:
    """The client's end.

    Args:
        port: Where the server listens on loopback.
        size: Bytes to copy.
        context: TLS; None for plaintext.
        party: Name in the server's certificate.
    """

    def __init__(self, port: int, size: int, context: ssl.SSLContext | None, party: str) -> None:
        plain = socket.create_connection(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = plain if context is None else context.wrap_socket(plain, server_hostname=party)
        self._buffer = memoryview(bytearray(size))

    def __enter__(self) -> Self:
        """Is connected already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def upload(self) -> float:
        """Seconds until the other side has all bytes and has said so."""
        began = time.perf_counter()
        self._connection.sendall(_UPLOAD)
        self._connection.sendall(self._buffer)
        _receive(self._connection, memoryview(bytearray(len(_DONE))))
        return time.perf_counter() - began

    def download(self) -> float:
        """Seconds until this side has all bytes."""
        began = time.perf_counter()
        self._connection.sendall(_DOWNLOAD)
        _receive(self._connection, self._buffer)
        return time.perf_counter() - began


def _receive(connection: socket.socket, buffer: memoryview) -> None:
    held = 0
    while held < len(buffer):
        count = connection.recv_into(buffer[held:])
        if not count:
            raise ConnectionError("the other side of the copy is gone")
        held += count
