"""Why a peer cannot be reached: nothing there, or one side does not accept the other's certificate.

gRPC reports both as UNAVAILABLE, so a failed connection is tried once more by hand, which tells them apart.
"""

from __future__ import annotations

import socket
import ssl

from comity.errors import CertificateRejected, PeerUnreachable, TransportError
from comity.transport.identity import Identity

_TIMEOUT_S = 3.0
_VERIFY = "the peer's certificate is not accepted here"


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def diagnose(address: str, party: str, identity: Identity, failure: str) -> TransportError:
    """Finds out why a peer does not answer.

    Args:
        address: Where the peer should be, `host:port`.
        party: Who should be there.
        identity: Who calls.
        failure: What gRPC said.
    """
    try:
        connection = socket.create_connection(split_address(address), timeout=_TIMEOUT_S)
    except OSError as error:
        return PeerUnreachable(
            f"{party} cannot be reached",
            expected=f"a node at {address}",
            received=error.strerror or error,
            action="check that it runs, and peers.address",
        )
    with connection:
        if not identity.is_secure:
            return _try_without_certificate(connection, address, party, failure)
        return _try_handshake(connection, address, party, identity, failure)


def _try_without_certificate(connection: socket.socket, address: str, party: str, failure: str) -> TransportError:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with context.wrap_socket(connection):
            pass
    except OSError:
        return PeerUnreachable(f"{party} at {address} answers but does not speak to us", received=failure)
    return CertificateRejected(
        f"{party} takes TLS only",
        expected="a client certificate",
        received="plaintext",
        action="configure [tls] and leave out insecure",
    )


def _try_handshake(
    connection: socket.socket, address: str, party: str, identity: Identity, failure: str
) -> TransportError:
    context = ssl.create_default_context(cafile=identity.trust)
    if identity.certificate is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection, server_hostname=party) as wrapped:
            # With TLS 1.3 a server judges the client's certificate after the client has finished.
            wrapped.recv(1)
    except ssl.SSLCertVerificationError as error:
        action = f"check the address, and that tls.trust holds what {party} is certified by"
        return CertificateRejected(
            _VERIFY, expected=f"a certificate of {party}", received=error.verify_message, action=action
        )
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        if "wrong version" in reason or "record layer" in reason or "packet length" in reason:
            return CertificateRejected(
                f"{party} at {address} does not speak TLS",
                expected="TLS",
                received="plaintext",
                action="turn off insecure there",
            )
        action = f"have {party} trust the certificate in tls.certificate"
        return CertificateRejected(
            f"{party} does not accept our certificate",
            expected="a certificate it trusts",
            received=reason,
            action=action,
        )
    except OSError as error:
        return PeerUnreachable(f"{party} at {address} broke the connection off", received=error.strerror or error)
    return PeerUnreachable(f"{party} at {address} did not answer the call", received=failure, action="try again")
