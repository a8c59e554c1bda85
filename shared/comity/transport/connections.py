"""Who holds a server's connections: before there are as many as it takes, those who have the most of them lose some.

grpc counts connections, and closes what comes beyond as many as it was told; it does not say whose they are, and takes nobody's
word on which to keep. So whoever opens enough would keep everybody else out, with a certificate or without. This looks at the
process's sockets, and hangs up on those that grpc is then told are gone. Only Linux shows them.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import structlog

log = structlog.get_logger()

_FILES = Path("/proc/self/fd")
_LOOK_S, _SOON_S = 1.0, 0.1
"""Between two looks: while there is room, and while there is little."""
_FULL, _ROOM = 0.75, 0.5
"""Shares of the most connections: from the first on some are closed, until no more than the second are left."""

_TELL_S, _NAMED = 10.0, 10
"""How often the log says whose were closed, in seconds, and how many of them it names."""
_FORGOTTEN = 1000
"""Places of which it is known whose they were, and that are forgotten together."""


class Endpoint(NamedTuple):
    """Where a caller calls from."""

    address: str
    port: int


class _Open(NamedTuple):
    """A connection that is open."""

    file: int
    place: Endpoint


def endpoint_of(peer: str) -> Endpoint | None:
    """What grpc calls a peer, such as `ipv4:192.0.2.1:5000` or `ipv6:%5B::1%5D:5000`; None for one that has no port."""
    kind, _, rest = peer.partition(":")
    address, _, port = unquote(rest).rpartition(":")
    if kind not in {"ipv4", "ipv6"} or not port.isdecimal():
        return None
    return _endpoint(address.strip("[]"), int(port))


class Connections:
    """The connections to one port, and whose they are.

    A party is known from its first call on. Those of whom nothing is known count by the address that they come from, each as
    a party of its own: what one address opens takes no other's place, and no known party's.

    Args:
        most: How many grpc takes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # By what grpc calls them: each call notes one, and few are ever looked for.
        self._parties: dict[str, str] = {}
        self._seen: dict[Endpoint, None] = {}
        self._cut: Counter[tuple[str, str]] = Counter()
        self._told = -_TELL_S
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, port: int) -> None:
        """Looks after those to a port of this machine, until `stop`."""
        if _FILES.is_dir():
            self._thread = threading.Thread(target=self._watch, args=(port,), name="connections", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def called(self, peer: str, party: str) -> None:
        """Takes note that a party that is trusted calls.

        Args:
            peer: What grpc calls it.
            party: Which party.
        """
        self._parties[peer] = party

    def _watch(self, port: int) -> None:
        pause = _LOOK_S
        while not self._stopped.wait(pause):
            # All files, which is quick to see; there are no more connections than that.
            files = len(os.listdir(_FILES))  # noqa: PTH208 - a thousand paths are not wanted
            pause = _LOOK_S if files < self._most * _ROOM else _SOON_S
            if files >= self._most * _FULL or len(self._parties) > files + _FORGOTTEN:
                self._look(port)
            self._tell()

    def _look(self, port: int) -> None:
        now = {each.place: each for each in _connected(port)}
        # In the order in which they were first seen.
        self._seen = dict.fromkeys((*(each for each in self._seen if each in now), *now))
        parties = {}
        for peer, party in self._parties.copy().items():
            place = endpoint_of(peer)
            if place in now:
                parties[place] = party
            else:
                self._parties.pop(peer, None)
        if len(now) < self._most * _FULL:
            return
        held: dict[tuple[str, str], list[_Open]] = {}
        for place in self._seen:
            known = parties.get(place)
            whose = ("address", place.address) if known is None else ("party", known)
            held.setdefault(whose, []).append(now[place])
        for whose, several in _beyond(held, int(self._most * _ROOM)).items():
            self._cut[whose] += len(several)
            for each in several:
                _hang_up(each, port)

    def _tell(self) -> None:
        """Says whose were cut, now and then: who goes on opening them fills no log."""
        if not self._cut or time.monotonic() < self._told + _TELL_S:
            return
        for (kind, name), count in self._cut.most_common(_NAMED):
            log.warning("connections-cut", **{kind: name}, count=count, why="few were left for others")
        self._cut.clear()
        self._told = time.monotonic()


def _beyond(held: dict[tuple[str, str], list[_Open]], most: int) -> dict[tuple[str, str], list[_Open]]:
    """Which connections are to go so that `most` are left: the oldest of those who have more than an equal share.

    The oldest, since one of which nothing is known is a moment later known, if it is an honest party's.
    """
    left, share, rest = most, 0, len(held)
    for count in sorted(map(len, held.values())):
        share = left // rest
        if count > share:
            break
        left, rest = left - count, rest - 1
    return {whose: several[: len(several) - share] for whose, several in held.items() if len(several) > share}


def _connected(port: int) -> Iterator[_Open]:
    """The connections of this process that came in at a port."""
    for name in os.listdir(_FILES):  # noqa: PTH208
        place = _other_end(int(name), port)
        if place is not None:
            yield _Open(int(name), place)


def _other_end(file: int, port: int) -> Endpoint | None:
    """Who is at the other end of a file, if it is a connection that came in at a port."""
    with suppress(OSError):
        # Files are grpc's, and are only looked at: to close even a copy of one that is no socket could give up a lock on it.
        if not str((_FILES / str(file)).readlink()).startswith("socket:"):
            return None
        opened = socket.socket(fileno=file)
        try:
            if opened.family in {socket.AF_INET, socket.AF_INET6} and opened.getsockname()[1] == port:
                address, number, *_ = opened.getpeername()
                return _endpoint(address, number)
        finally:
            opened.detach()
    return None


def _endpoint(address: str, port: int) -> Endpoint:
    with suppress(ValueError):
        found = ip_address(address.partition("%")[0])
        address = str(getattr(found, "ipv4_mapped", None) or found)
    return Endpoint(address, port)


def _hang_up(connection: _Open, port: int) -> None:
    """Ends a connection, unless the file is another by now; grpc sees its end, and closes the file."""
    if _other_end(connection.file, port) != connection.place:
        return
    with suppress(OSError):
        opened = socket.socket(fileno=connection.file)
        try:
            opened.shutdown(socket.SHUT_RDWR)
        finally:
            opened.detach()
