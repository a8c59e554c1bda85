"""A bare exchange: so many bytes one way over mTLS, so many back, and one durable commit at each end.

Run as a program, it is the other end, which prints its port and ends with its standard input.
"""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from comity.bench.transfer.sockets import client_context, server_context
from comity.transport.certificates import Authority
from comity.transport.identity import Identity

_OWN, _OTHER = "learner", "provider"


class Commits:
    """Keeps what it is given in a database, one durable commit each.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("CREATE TABLE kept (content BLOB)")

    def commit(self, content: bytes) -> None:
        """Keeps something."""
        self._database.execute("INSERT INTO kept VALUES (?)", (content,))

    def close(self) -> None:
        """Closes the file."""
        self._database.close()


class Exchange:
    """This end.

    Args:
        lines: To the other ends.
        kept: Where what came is kept.
        sizes: Bytes that go, and that come.
    """

    def __init__(self, lines: Sequence[socket.socket], kept: Commits, sizes: tuple[int, int]) -> None:
        self._lines, self._kept, self._sizes = lines, kept, sizes

    def once(self) -> float:
        """Seconds from the first byte to the commit of what all sent back."""
        sent, expected = self._sizes
        content, began = bytes(sent), time.perf_counter()
        for line in self._lines:
            line.sendall(content)
        came = [_received(line, expected) for line in self._lines]
        self._kept.commit(b"".join(came))
        return time.perf_counter() - began


@contextmanager
def exchange(peers: int, sizes: tuple[int, int], folder: Path) -> Iterator[Exchange]:
    """An exchange with so many processes at once."""
    authority = Authority.create()
    context = client_context(authority.issue(_OWN, folder / _OWN))
    with ExitStack() as stack:
        lines = []
        for peer in range(peers):
            authority.issue(_OTHER, folder / f"{_OTHER}-{peer}")
            typed = [sys.executable, "-m", __name__, str(folder / f"{_OTHER}-{peer}"), *map(str, sizes)]
            process = stack.enter_context(
                subprocess.Popen(typed, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this program
            )
            if process.stdin is not None:
                stack.callback(process.stdin.close)
            port = int(process.stdout.readline()) if process.stdout is not None else 0
            plain = socket.create_connection(("127.0.0.1", port))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lines.append(stack.enter_context(context.wrap_socket(plain, server_hostname=_OTHER)))
        kept = stack.enter_context(closing(Commits(folder / "kept.db")))
        yield Exchange(lines, kept, sizes)


def serve(folder: Path, comes: int, goes: int) -> None:
    """The other end: answers one line until it is closed."""
    files = (folder / "certificate.pem", folder / "key.pem", folder / "trust.pem")
    context = server_context(Identity(_OTHER, *files))
    with socket.create_server(("127.0.0.1", 0)) as listener, closing(Commits(folder / "kept.db")) as kept:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(accepted, server_side=True) as line:
            while content := _received(line, comes):
                kept.commit(content)
                line.sendall(bytes(goes))


def _received(line: socket.socket, size: int) -> bytes:
    """So many bytes; fewer where the other end is closed."""
    found = bytearray()
    while len(found) < size and (part := line.recv(size - len(found))):
        found += part
    return bytes(found)


if __name__ == "__main__":
    # Who started it may die without a word.
    threading.Thread(target=serve, args=(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])), daemon=True).start()
    sys.stdin.read()
