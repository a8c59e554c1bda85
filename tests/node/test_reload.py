"""What of a configuration that is read again reaches: every server of a node, and its end; or nothing at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from comity.errors import MissingFile, PolicyRefusal
from comity.node.config import NodeConfig, load_config
from comity.node.control_client import ControlClient
from comity.node.daemon import Node
from comity.transport.addresses import socket_url
from comity.transport.cards import fingerprint
from tests.e2e.conftest import until
from tests.transport.test_trust import Party

DEADLINE_S = 20.0

Write = Callable[..., Path]


@pytest.fixture
def free_address() -> str:
    """An address of loopback at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def alice(tmp_path: Path) -> Party:
    return Party("alice", tmp_path / "alice")


@pytest.fixture
def write(tmp_path: Path, alice: Party, free_address: str) -> Write:
    """Writes a node's file, which alice may drive it by."""
    clinic = Party("clinic", tmp_path / "clinic")
    clinic.trusts(alice)
    alice.trusts(clinic)
    file = clinic.folder / "node.toml"

    def make(policy: str = "", drain_s: float = 5.0) -> Path:
        file.write_text(
            f'party = "clinic"\nstate_dir = "s"\ndrain_s = {drain_s}\n[policy]\n{policy}\n'
            '[tls]\ncertificate = "own.pem"\nkey = "key.pem"\ntrust = "trust"\n'
            f'[control]\nlisten = "{free_address}"\noperators = "trust"\n'
        )
        return file

    return make


@contextmanager
def on(file: Path) -> Iterator[tuple[Node, threading.Thread, threading.Event]]:
    node, stop = Node("analyst", load_config(NodeConfig, file), file), threading.Event()
    thread = threading.Thread(target=node.serve, args=(stop,), name="node")
    thread.start()
    try:
        until(lambda: (file.parent / "s" / "control.sock").exists() or not thread.is_alive(), "it serves")
        # A configuration that is read again waits for the whole node.
        node.reload()
        yield node, thread, stop
    finally:
        stop.set()
        thread.join(DEADLINE_S)


def test_an_operator_who_is_revoked_is_let_in_no_more(write: Write, alice: Party, free_address: str) -> None:
    with on(write()) as (node, _, _), ControlClient(f"clinic@{free_address}", alice.identity) as control:
        control.status()
        write(f'revoked = ["{fingerprint(alice.certificate)}"]')
        node.reload()
        with pytest.raises(PolicyRefusal, match="refuses alice's certificate"):
            control.status()


def test_where_trust_cannot_be_read_nothing_is_taken_over(write: Write) -> None:
    file = write("max_sessions = 3")
    node = Node("analyst", load_config(NodeConfig, file), file)
    trust = file.parent / "trust"
    trust.rename(file.parent / "elsewhere")
    write("max_sessions = 4")
    with pytest.raises(MissingFile, match="whom to trust is missing"):
        node.reload()
    (file.parent / "elsewhere").rename(trust)
    # Also before it serves.
    assert node.reload().applied == ("policy.max_sessions",)


def test_calls_at_the_end_have_the_time_that_is_configured_by_then(write: Write) -> None:
    file = write(drain_s=600.0)
    with on(file) as (node, thread, stop):
        address = socket_url(file.parent / "s" / "control.sock")
        with grpc.insecure_channel(address, [("grpc.default_authority", "localhost")]) as channel:
            following = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            next(following)
            write(drain_s=0.1)
            assert node.reload().applied == ("drain_s",)
            stop.set()
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
