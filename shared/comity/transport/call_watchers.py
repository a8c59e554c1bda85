"""Who is told of every call that was answered, at either end of it: metrics and traces, where a node has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import grpc

from comity.errors import ComityError, RemoteFailure
from comity.transport.status import STATUS

OK = "OK"
"""How a call ended that was answered; else it is the name of gRPC's status code."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has ended.

    Attributes:
        side: `client` where this node made it, `server` where it answered.
        method: Full name of the method, without the first slash.
        session: The session that it quotes; empty for none.
        began_ns: When it began, in nanoseconds since 1970.
        seconds: How long it took.
        ending: `OK`, or the name of the status code.
    """

    side: Literal["client", "server"]
    method: str
    session: str
    began_ns: int
    seconds: float
    ending: str


Watcher = Callable[[Call], None]
"""Is told of a call; must return soon and raise nothing."""

_watchers: list[Watcher] = []


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Has a watcher be told of the calls of this process until the block is left.

    Lines that were opened before are not watched: at their end nothing is measured where nobody wants to know.
    """
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def is_watched() -> bool:
    """Whether anybody wants to know."""
    return bool(_watchers)


@contextmanager
def measured(side: Literal["client", "server"], method: str, session: str) -> Iterator[None]:
    """Tells the watchers of a call that lasts as long as the block."""
    if not _watchers:
        yield
        return
    began_ns, began = time.time_ns(), time.monotonic()
    ending = OK
    try:
        yield
    except grpc.RpcError as error:
        ending = _named(error)
        raise
    except Exception as error:
        # What the other side sees of it.
        ending = STATUS[type(error) if isinstance(error, ComityError) else RemoteFailure].name
        raise
    finally:
        _tell(Call(side, method.strip("/"), session, began_ns, time.monotonic() - began, ending))


class UnaryCalls(grpc.UnaryUnaryClientInterceptor):
    """Tells the watchers of a channel's calls with one request and one answer.

    Args:
        session_key: Key of the metadata in which a call quotes its session.
    """

    def __init__(self, session_key: str) -> None:
        self._session_key = session_key

    def intercept_unary_unary(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        """Makes a call, and tells of it once it has ended."""
        session = next((value for key, value in details.metadata or () if key == self._session_key), "")
        began_ns, began = time.time_ns(), time.monotonic()
        call = continuation(details, request)

        def tell(ended: Any) -> None:
            _tell(Call("client", details.method.strip("/"), session, began_ns, time.monotonic() - began, _named(ended)))

        call.add_done_callback(tell)
        return call


def _named(ended: Any) -> str:
    """The name of the status code of a call or of an error; cancelled ones may have none."""
    code = ended.code() if hasattr(ended, "code") else None
    return code.name if code is not None else "UNKNOWN"


def _tell(call: Call) -> None:
    for watcher in _watchers.copy():
        watcher(call)
