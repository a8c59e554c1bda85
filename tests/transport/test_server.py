"""The server harness: where it listens, and what every node answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from teacher_votes.definition import PROTOCOL

from comity.errors import AddressInUse, InvalidValue, MissingFile, UnknownSession
from comity.transport import blobs, sessions
from comity.transport.call_watchers import Call, measured, watching
from comity.transport.identity import Identity
from comity.transport.server import NodeServer, is_loopback

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_answers_for_the_node_and_each_service(serve: Callable[..., Any]) -> None:
    with grpc.insecure_channel(serve().address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ["", sessions.SERVICE, blobs.SERVICE, PROTOCOL.load().service.name]:
            assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_node_that_stops_says_so_first(serve: Callable[..., Any]) -> None:
    host = serve()
    with grpc.insecure_channel(host.address) as channel:
        answers = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert next(answers).status == SERVING
        stopping = threading.Thread(target=host.server.stop, args=(10,))
        stopping.start()
        assert next(answers).status == NOT_SERVING
        # It waited for this call; now it is over.
        answers.cancel()
        stopping.join()


def test_reflection_lists_and_describes_the_services(serve: Callable[..., Any]) -> None:
    with grpc.insecure_channel(serve().address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        names = set(database.get_services())
        assert {sessions.SERVICE, blobs.SERVICE, PROTOCOL.load().service.name} <= names
        described = database.FindFileContainingSymbol(sessions.SERVICE)
        assert {"Propose", "Draft", "Fetch", "End", "Describe"} == {
            method.name for method in described.service[0].method
        }


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:0", "[::]:0", "example.org:0", "192.168.1.1:5500"])
def test_plaintext_is_for_loopback_only(address: str) -> None:
    with pytest.raises(InvalidValue, match=r"plaintext is for loopback only.*configure \[tls\]"):
        NodeServer(None, []).start(address)


@pytest.mark.parametrize(
    "address", ["", "5500", "127.0.0.1", "127.0.0.1:", ":5500", "127.0.0.1:http", "127.0.0.1:65536"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidValue, match="not an address: expected host:port"):
        NodeServer(None, []).start(address)


def test_loopback_is_known_by_name_and_number() -> None:
    assert all(map(is_loopback, ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"]))
    assert not any(map(is_loopback, ["0.0.0.0:1", "10.0.0.1:1", "localhost.example.org:1", "[::]:1"]))


@pytest.mark.parametrize("secure", [True, False])
def test_an_address_in_use_is_said_to_be(issue: Callable[..., Identity], secure: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressInUse, match=f"received {address}"):
            NodeServer(issue("hospital") if secure else None, []).start(address)


@pytest.mark.parametrize("name", ["certificate", "key", "trust"])
def test_a_missing_tls_file_is_said_to_be(issue: Callable[..., Identity], name: str) -> None:
    identity = issue("hospital")
    path: Path = getattr(identity, name)
    path.unlink()
    with pytest.raises(MissingFile, match=f"{path}"):
        NodeServer(identity, []).start("127.0.0.1:0")


@pytest.mark.parametrize("name", ["certificate", "key", "trust"])
def test_a_tls_file_that_is_none_is_not_taken_for_an_address_in_use(issue: Callable[..., Identity], name: str) -> None:
    identity = issue("hospital")
    path: Path = getattr(identity, name)
    path.write_text("not PEM")
    with pytest.raises(InvalidValue, match=f"{path}"):
        NodeServer(identity, []).start("127.0.0.1:0")


def test_unix_sockets_take_plaintext(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'socket'}"
    server = NodeServer(None, [])
    assert server.start(address) == address
    try:
        with grpc.insecure_channel(address, [("grpc.default_authority", "localhost")]) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert answer.status == SERVING
    finally:
        server.stop(0)


def test_what_is_not_named_is_not_served(echo: Callable[..., Any]) -> None:
    """A service that nobody has looked at answers nobody, though its handlers are there."""
    served = echo()
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"a sample")
    served.server.server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Other", {"Call": handler}),)
    )
    with grpc.insecure_channel(served.address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/test.Other/Call")(b"", timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("error", "ending"), [(UnknownSession("there is none"), "NOT_FOUND"), (RuntimeError("secret"), "INTERNAL")]
)
def test_a_call_ended_as_the_other_side_sees_it(error: Exception, ending: str) -> None:
    told: list[Call] = []
    with watching(told.append), pytest.raises(type(error)), measured("server", "/s/M", "s-1"):
        raise error
    assert [each.ending for each in told] == [ending]
