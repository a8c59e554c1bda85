"""A party whom an authority vouches for, and whose certificate is revoked while it follows something of a node."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest
import tomlkit
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from comity.errors import PolicyRefusal
from comity.node.control_client import ControlClient
from comity.transport.cards import fingerprint
from comity.transport.peer_connection import PeerConnection
from tests.cases import plain
from tests.e2e.conftest import until
from tests.e2e.hostile.initiators import MALLORY, Siege, besieged
from tests.e2e.hostile.parties import refusal


@pytest.fixture
def siege() -> Iterator[Siege]:
    with TemporaryDirectory(prefix="e2e-") as folder, besieged(plain("federated_count").script, Path(folder)) as found:
        yield found


def followed(line: PeerConnection, calls: dict[str, Any], threads: ThreadPoolExecutor) -> Future[grpc.StatusCode]:
    """How a stream of the node's health ends, which goes on for as long as the node."""
    stream = line.stub(health_pb2_grpc.HealthStub).Watch(health_pb2.HealthCheckRequest())
    next(stream)
    calls[line.party] = stream

    def end() -> grpc.StatusCode:
        with suppress(grpc.RpcError):
            for _ in stream:
                pass
        return stream.code()

    return threads.submit(end)


def revoke(siege: Siege, party: str) -> None:
    """Puts a party's certificate on the acceptor's list, and has it read again."""
    certificate = x509.load_pem_x509_certificate(siege.identities[party].certificate.read_bytes())
    file = siege.acceptor.folder / "node.toml"
    document = tomlkit.parse(file.read_text())
    document["policy"] = {**document["policy"], "revoked": [fingerprint(certificate)]}  # type: ignore[dict-item]
    file.write_text(tomlkit.dumps(document))
    with ControlClient(siege.acceptor.control_url) as control:
        assert "policy.revoked" in control.reload().applied


def test_its_open_streams_and_sessions_end_at_the_next_reload_and_nobody_elses(siege: Siege) -> None:
    honest = siege.initiators[0]
    assert not siege.identities[honest].trust.is_dir()
    contract = siege.drafted("revoked", MALLORY)
    siege.join(contract, MALLORY)
    calls: dict[str, Any] = {}
    with ThreadPoolExecutor() as threads:
        hers, theirs = (followed(siege.line(each), calls, threads) for each in (MALLORY, honest))
        try:
            revoke(siege, MALLORY)
            assert hers.result(timeout=60) in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
            # Whoever calls again is told, in her session too.
            with siege.line(MALLORY) as line:
                line.enter(contract.session, contract.hash)
                assert isinstance(refusal(lambda: siege.join(contract, MALLORY)), PolicyRefusal)
            assert not theirs.done()
            siege.join(siege.drafted("honest", honest), honest)
        finally:
            for each in calls.values():
                each.cancel()
    until(theirs.done, "the other's ends when it wants")
