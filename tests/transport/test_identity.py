"""A party is the name in its certificate, and what goes wrong between two certificates is told apart from silence."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import stamina.instrumentation
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from comity.errors import CertificateRejected, ComityError, PeerUnreachable, UnknownParty
from comity.transport.certificates import Authority
from comity.transport.diagnosis import diagnose
from comity.transport.identity import PARTY_KEY, Identity, caller
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy

DEADLINE_S = 10.0


def name_the_caller(request: bytes, context: grpc.ServicerContext) -> bytes:
    return caller(context).encode()


def call(connection: PeerConnection, method: Callable[[grpc.Channel], Any]) -> bytes:
    return connection.call(method(connection.channel), b"")


@contextmanager
def recorded_retries() -> Iterator[list[str]]:
    """Every attempt that is to be repeated, as the error that it ended with."""
    retries: list[str] = []

    def hook(details: stamina.instrumentation.RetryDetails) -> None:
        retries.append(repr(details.caused_by))

    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([hook])
    try:
        yield retries
    finally:
        stamina.instrumentation.set_on_retry_hooks(before)


def client_context(identity: Identity, *, with_certificate: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=identity.trust)
    context.set_alpn_protocols(["h2"])
    if with_certificate:
        assert identity.certificate is not None
        context.load_cert_chain(identity.certificate, identity.key)
    return context


def server_context(identity: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=identity.trust)
    assert identity.certificate is not None
    context.load_cert_chain(identity.certificate, identity.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    return context


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=DEADLINE_S)


def test_a_caller_is_the_name_in_its_certificate(
    echo: Callable[..., Any],
    connect: Callable[..., PeerConnection],
    issue: Callable[..., Identity],
    method: Callable[..., Any],
) -> None:
    address = echo(name_the_caller, identity=issue("hospital")).address
    connection = connect(address, identity=issue("clinic"))
    assert call(connection, method) == b"clinic"
    # Whatever it says of itself.
    claimed = method(connection.channel)(b"", metadata=((PARTY_KEY, "bank"),), timeout=DEADLINE_S)
    assert claimed == b"clinic"


def test_a_caller_in_plaintext_names_itself(
    echo: Callable[..., Any], connect: Callable[..., PeerConnection], method: Callable[..., Any]
) -> None:
    connection = connect(echo(name_the_caller).address)
    assert call(connection, method) == b"clinic"
    assert method(connection.channel)(b"", timeout=DEADLINE_S) == b""


def without_name(identity: Identity, authority: Authority, folder: Path) -> Identity:
    """The same party with a certificate that names nobody."""
    assert identity.key is not None
    key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clinic")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())  # type: ignore[arg-type]
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(authority.key, hashes.SHA256())
    )
    path = folder / "nameless.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return replace(identity, certificate=path)


def test_a_certificate_that_names_nobody_is_no_party(
    echo: Callable[..., Any],
    connect: Callable[..., PeerConnection],
    issue: Callable[..., Identity],
    method: Callable[..., Any],
    authority: Authority,
    tmp_path: Path,
) -> None:
    address = echo(name_the_caller, identity=issue("hospital")).address
    connection = connect(address, identity=without_name(issue("clinic"), authority, tmp_path))
    with pytest.raises(UnknownParty, match="subject alternative name"):
        call(connection, method)


def test_private_keys_are_for_their_owner_alone(issue: Callable[..., Identity]) -> None:
    key = issue("clinic").key
    assert key is not None
    assert key.stat().st_mode & 0o077 == 0


def test_a_node_serves_tls_1_3(echo: Callable[..., Any], issue: Callable[..., Identity]) -> None:
    address = echo(identity=issue("hospital")).address
    context = client_context(issue("clinic"))
    with connected(address) as plain, context.wrap_socket(plain, server_hostname="hospital") as secure:
        assert secure.version() == "TLSv1.3"
        assert secure.selected_alpn_protocol() == "h2"


def test_a_node_asks_with_tls_1_3(
    connect: Callable[..., PeerConnection], issue: Callable[..., Identity], method: Callable[..., Any]
) -> None:
    context = server_context(issue("hospital"))
    versions = []

    def serve() -> None:
        with listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True) as secure:
            versions.append(secure.version())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        connection = connect(f"127.0.0.1:{listener.getsockname()[1]}", identity=issue("clinic"))
        with suppress(grpc.RpcError):
            method(connection.channel)(b"", timeout=DEADLINE_S)
        serving.join(DEADLINE_S)
    assert versions == ["TLSv1.3"]


def test_a_caller_without_a_certificate_is_turned_away(
    echo: Callable[..., Any],
    connect: Callable[..., PeerConnection],
    issue: Callable[..., Identity],
    method: Callable[..., Any],
) -> None:
    hospital = issue("hospital")
    address = echo(identity=hospital).address
    context = client_context(hospital, with_certificate=False)
    with (
        connected(address) as plain,
        context.wrap_socket(plain, server_hostname="hospital") as secure,
    ):
        # A node that takes a caller speaks first, with its HTTP/2 settings.
        assert secure.recv(1) == b""
    # It cost that caller its connection only.
    assert call(connect(address, identity=issue("clinic")), method) == b""


Setting = Callable[[Callable[..., Any], Callable[..., Identity]], tuple[str, Identity]]


def foreign_caller(echo: Callable[..., Any], issue: Callable[..., Identity]) -> tuple[str, Identity]:
    """Certified by somebody that the hospital does not know, but knowing who certified the hospital."""
    hospital = issue("hospital")
    stranger = issue("clinic", by=Authority.create())
    return echo(identity=hospital).address, replace(stranger, trust=hospital.trust)


def foreign_peer(echo: Callable[..., Any], issue: Callable[..., Identity]) -> tuple[str, Identity]:
    clinic = issue("clinic")
    stranger = issue("hospital", by=Authority.create())
    return echo(identity=replace(stranger, trust=clinic.trust)).address, clinic


def other_party(echo: Callable[..., Any], issue: Callable[..., Identity]) -> tuple[str, Identity]:
    return echo(identity=issue("bank")).address, issue("clinic")


def plaintext_caller(echo: Callable[..., Any], issue: Callable[..., Identity]) -> tuple[str, Identity]:
    return echo(identity=issue("hospital")).address, Identity("clinic")


def plaintext_peer(echo: Callable[..., Any], issue: Callable[..., Identity]) -> tuple[str, Identity]:
    return echo().address, issue("clinic")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            foreign_caller,
            ["hospital does not accept our certificate", "expected a certificate it trusts", "tls.certificate"],
        ),
        (foreign_peer, ["not accepted here", "expected a certificate of hospital", "tls.trust"]),
        (other_party, ["not accepted here", "expected a certificate of hospital", "mismatch", "check the address"]),
        (plaintext_caller, ["hospital takes TLS only", "received plaintext", "[tls]"]),
        (plaintext_peer, ["hospital at 127.0.0.1", "does not speak TLS", "received plaintext", "insecure"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_certificate_failures_are_named_and_not_retried(
    echo: Callable[..., Any],
    connect: Callable[..., PeerConnection],
    issue: Callable[..., Identity],
    method: Callable[..., Any],
    setting: Setting,
    words: list[str],
) -> None:
    address, identity = setting(echo, issue)
    connection = connect(address, identity=identity, retry=RetryPolicy(call_s=DEADLINE_S, retry_s=2.0))
    with recorded_retries() as retries, pytest.raises(CertificateRejected) as caught:
        call(connection, method)
    assert not retries
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("has_passphrase", [True, False])
def test_a_key_with_a_passphrase_serves_and_calls(
    echo: Callable[..., Any],
    connect: Callable[..., PeerConnection],
    issue: Callable[..., Identity],
    method: Callable[..., Any],
    has_passphrase: bool,
) -> None:
    """A passphrase that is configured for a key that has none is not used."""
    both = []
    for party in ("hospital", "clinic"):
        identity = issue(party)
        assert identity.key is not None
        secret = identity.key.with_name("passphrase")
        secret.write_text("four words and more\n")
        if has_passphrase:
            key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
            lock = serialization.BestAvailableEncryption(b"four words and more")
            form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
            identity.key.write_bytes(key.private_bytes(*form, lock))
        both.append(replace(identity, passphrase=secret))
    address = echo(name_the_caller, identity=both[0]).address
    assert call(connect(address, identity=both[1]), method) == b"clinic"
    # What tells why a call failed shows its certificate as well.
    stranger = replace(both[1], trust=issue("bank", by=Authority.create()).trust)
    assert isinstance(diagnose(address, "hospital", stranger, ""), CertificateRejected)


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Something that is no node: it takes connections and does `answer` with each."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection = listener.accept()[0]
                with connection, suppress(OSError):
                    answer(connection)

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()


def hang_up(connection: socket.socket) -> None:
    """What a load balancer does whose node is away."""


def hang_up_after_hello(connection: socket.socket) -> None:
    """A node that goes down in the middle of a handshake."""
    connection.recv(1)
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65536):
        pass


@pytest.mark.parametrize("answer", [hang_up, hang_up_after_hello])
@pytest.mark.parametrize("secure", [True, False])
def test_a_peer_that_hangs_up_is_unreachable_and_may_come_back(
    issue: Callable[..., Identity], answer: Callable[[socket.socket], None], secure: bool
) -> None:
    identity = issue("clinic") if secure else Identity("clinic")
    with listening(answer) as address:
        error = diagnose(address, "hospital", identity, "connection reset")
    assert type(error) is PeerUnreachable
    assert "hospital" in str(error)


def test_a_node_that_goes_down_at_the_wrong_moment_is_unreachable(issue: Callable[..., Identity]) -> None:
    # gRPC hangs up on a caller whose certificate it rejects; so does a node that is killed just then.
    context = server_context(issue("hospital"))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True):
                listener.shutdown(socket.SHUT_RDWR)
                listener.close()

        serving = threading.Thread(target=serve)
        serving.start()
        error = diagnose(f"127.0.0.1:{listener.getsockname()[1]}", "hospital", issue("clinic"), "reset")
        serving.join()
    assert type(error) is PeerUnreachable


def test_nothing_listening_is_unreachable_and_retried(
    connect: Callable[..., PeerConnection],
    issue: Callable[..., Identity],
    method: Callable[..., Any],
    free_address: str,
) -> None:
    for identity in (issue("clinic"), Identity("clinic")):
        connection = connect(free_address, identity=identity, retry=RetryPolicy(call_s=DEADLINE_S, retry_s=0.05))
        with recorded_retries(), pytest.raises(PeerUnreachable) as caught:
            call(connection, method)
        assert str(caught.value) == (
            f"hospital cannot be reached: expected a node at {free_address}, "
            "received Connection refused; check that it runs, and peers.address"
        )


def test_a_node_that_answers_is_not_blamed_on_certificates(
    echo: Callable[..., Any], issue: Callable[..., Identity]
) -> None:
    address = echo(identity=issue("hospital")).address
    error = diagnose(address, "hospital", issue("clinic"), "GOAWAY")
    assert type(error) is PeerUnreachable
    assert "did not answer the call" in str(error)
    assert "GOAWAY" in str(error)


@pytest.mark.parametrize("address", ["hospital", "hospital:", ":5500", "hospital:http"])
def test_an_address_that_is_none_is_refused_before_anything_is_tried(
    connect: Callable[..., PeerConnection], address: str
) -> None:
    with pytest.raises(ComityError, match="host:port"):
        connect(address)
