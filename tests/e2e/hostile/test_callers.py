"""Callers that are not who they should be, and noise on the port."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

from comity import errors
from comity.errors import ComityError
from comity.transport import sessions
from comity.transport.certificates import Authority
from comity.transport.identity import Identity
from comity.transport.negotiation import encode_proposal
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy
from comity.wire.v1 import sessions_pb2_grpc
from tests.e2e.hostile.parties import QUICK, Target, assert_clear, refusal
from tests.e2e.hostile.votes import PLAY


def reach(identity: Identity, address: str, party: str = "hospital") -> ComityError:
    contract, initiator = PLAY.mallorys("unreached")
    message = encode_proposal(contract, initiator.membership("student"), initiator.signer, PLAY.definition)
    with PeerConnection(identity, party, address, RetryPolicy(call_s=5.0, retry_s=5.0)) as connection:
        return refusal(lambda: sessions.propose(connection, message))


@pytest.mark.usefixtures("during")
def test_a_foreign_certificate(target: Target, tmp_path: Path) -> None:
    foreign = Authority.create().issue("mallory", tmp_path)
    # The client looks first, and does not accept the hospital either.
    error = reach(foreign, target.address)
    assert_clear(error, errors.CertificateRejected, "certificate of hospital", "tls.trust")
    # One that trusts the hospital is turned away by it.
    half = Identity("mallory", foreign.certificate, foreign.key, target.mallory.trust)
    error = reach(half, target.address)
    assert_clear(error, errors.CertificateRejected, "hospital does not accept our certificate", "tls.certificate")


@pytest.mark.usefixtures("during")
def test_an_expired_certificate(target: Target, site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.transport.certificates._LIFETIME", datetime.timedelta(minutes=-1))
    expired = site.authority.issue("mallory", tmp_path)
    error = reach(expired, target.address)
    assert_clear(error, errors.CertificateRejected, "hospital does not accept our certificate")


@pytest.mark.usefixtures("during")
def test_a_plaintext_peer(target: Target) -> None:
    error = reach(Identity("mallory"), target.address)
    assert_clear(error, errors.CertificateRejected, "hospital takes TLS only", "plaintext", "[tls]")


@pytest.mark.usefixtures("during")
def test_a_node_of_another_name(target: Target) -> None:
    error = reach(target.mallory, target.address, party="somebody")
    assert_clear(error, errors.CertificateRejected, "certificate of somebody", "check the address")


@pytest.mark.usefixtures("during")
def test_no_client_certificate(target: Target) -> None:
    assert target.mallory.trust is not None
    credentials = grpc.ssl_channel_credentials(target.mallory.trust.read_bytes())
    options = [("grpc.ssl_target_name_override", "hospital")]
    with grpc.secure_channel(target.address, credentials, options) as channel:
        propose = sessions_pb2_grpc.SessionsStub(channel).Propose
        with pytest.raises(grpc.RpcError) as caught:
            propose(PLAY.proposal(), timeout=QUICK.call_s)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\xff" * 512, b"\0" * 4096])
@pytest.mark.usefixtures("during")
def test_noise_on_the_port(target: Target, noise: bytes) -> None:
    host, port = target.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=QUICK.call_s) as connection:
        connection.sendall(noise)
        connection.shutdown(socket.SHUT_WR)
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
