"""What the transport's tests share: certificates and echoing servers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from comity.session.limits import Limits
from comity.transport.certificates import Authority
from comity.transport.identity import Identity
from comity.transport.server import NodeServer

METHOD = "/test.Echo/Call"


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
            limits: Limits = Limits(),  # noqa: B008 - it is frozen
        ) -> Echo:
            server = NodeServer(identity, ["test.Echo"], limits=limits)
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


@pytest.fixture
def free_address() -> str:
    """An address of loopback at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"
