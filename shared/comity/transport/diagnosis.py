"""Why a peer cannot be reached: nothing there, or one side does not accept the other's certificate.

gRPC reports both as UNAVAILABLE, so a failed connection is tried once more by hand, which tells them apart.
"""

from __future__ import annotations

import socket
import ssl
import urllib.request

from cryptography.x509 import load_der_x509_certificate

from comity.errors import CertificateRejected, PeerUnreachable, TransportError
from comity.transport.addresses import split_address
from comity.transport.identity import Identity
from comity.transport.retry import CONNECT_S

_VERIFY = "the peer's certificate is not accepted here"


def diagnose(address: str, party: str, identity: Identity, failure: str) -> TransportError:
    """Finds out why a peer does not answer; names a proxy of the environment's that its calls go through.

    Args:
        address: Where the peer should be, `host:port`.
        party: Who should be there.
        identity: Who calls.
        failure: What gRPC said.
    """
    error = _diagnosed(address, party, identity, failure)
    proxy = _proxy_for(address)
    if proxy is None or isinstance(error, CertificateRejected):
        return error
    return type(error)(
        error.what,
        expected=error.expected,
        received=error.received,
        action=f"{error.action}; calls go through {proxy} of the environment, which no_proxy={split_address(address)[0]} ends",
    )


def _proxy_for(address: str) -> str | None:
    """The variable of the environment that has gRPC call an address through a proxy; None where none has."""
    found = urllib.request.getproxies_environment()
    scheme = next((each for each in ("grpc", "https", "http") if each in found), None)
    if scheme is None or urllib.request.proxy_bypass(split_address(address)[0]):
        return None
    return f"{scheme}_proxy"


def _diagnosed(address: str, party: str, identity: Identity, failure: str) -> TransportError:
    """Finds out why a peer does not answer.

    Args:
        address: Where the peer should be, `host:port`.
        party: Who should be there.
        identity: Who calls.
        failure: What gRPC said.
    """
    if "too_many_pings" in failure.lower().replace(" ", "_"):
        return PeerUnreachable(
            f"{party} at {address} closed the line",
            expected="a node that lets its callers ask every 20 s whether it is there",
            received=failure,
            action="run the same version of comity on both sides; what stands between may allow fewer pings, too",
        )
    try:
        connection = socket.create_connection(split_address(address), timeout=CONNECT_S)
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
        return PeerUnreachable(
            f"{party} at {address} answers but does not speak to us",
            expected="a node without TLS",
            received=failure,
            action="check the address: something else may listen there",
        )
    return CertificateRejected(
        f"{party} takes TLS only",
        expected="a client certificate",
        received="plaintext",
        action="configure [tls] and leave out insecure",
    )


def require_unrevoked(address: str, party: str, identity: Identity) -> bool:
    """Checks a peer's certificate against the deny-list, in a handshake for that alone.

    gRPC does not show a caller the certificate of whom it calls. One that is on a card is left out of what the peer must
    lead to, and needs no such look; this is for those that a trusted authority issued.

    Returns:
        Whether there was one to check.

    Raises:
        PolicyRefusal: It is revoked.
    """
    try:
        with (
            socket.create_connection(split_address(address), timeout=CONNECT_S) as connection,
            _context(identity, party).wrap_socket(connection, server_hostname=party) as wrapped,
        ):
            shown = wrapped.getpeercert(binary_form=True)
    except OSError:
        # The call itself says what is wrong.
        return False
    if shown is not None:
        identity.trusted().require_unrevoked(party, load_der_x509_certificate(shown))
    return shown is not None


def _context(identity: Identity, party: str) -> ssl.SSLContext:
    # As lenient as gRPC: newer default contexts ask for more than certificates of two organisations need to have.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=identity.trusted().roots_for(party).decode())
    if identity.certificate is not None:
        context.load_cert_chain(identity.certificate, identity.key, lambda: identity.password() or b"")
    context.set_alpn_protocols(["h2"])
    return context


def _try_handshake(
    connection: socket.socket, address: str, party: str, identity: Identity, failure: str
) -> TransportError:
    try:
        wrapped = _context(identity, party).wrap_socket(connection, server_hostname=party)
    except ssl.SSLCertVerificationError as error:
        action = f"check the address, and that tls.trust holds the card that {party} uses now"
        expected = f"a certificate of {party}"
        return CertificateRejected(_VERIFY, expected=expected, received=error.verify_message, action=action)
    except (ssl.SSLEOFError, ConnectionError, TimeoutError):
        return _broken_off(address, party, failure)
    except ssl.SSLError as error:
        return _explain_alert(error, address, party)
    with wrapped:
        return _after_handshake(wrapped, address, party, failure)


def _after_handshake(wrapped: ssl.SSLSocket, address: str, party: str, failure: str) -> TransportError:
    try:
        # With TLS 1.3 a server judges the client's certificate after the client has finished.
        if wrapped.recv(1):
            return PeerUnreachable(
                f"{party} at {address} did not answer the call",
                expected="an answer",
                received=failure,
                action="try again; if it stays so, look at its log",
            )
    except (ssl.SSLEOFError, ConnectionError):
        pass
    except TimeoutError:
        return _broken_off(address, party, failure)
    except ssl.SSLError as error:
        return _explain_alert(error, address, party)
    # gRPC hangs up without a word on a caller that it does not trust; a node that goes down is not there afterwards.
    return _rejected(party, "it hung up") if _is_listening(address) else _broken_off(address, party, failure)


def _broken_off(address: str, party: str, failure: str) -> PeerUnreachable:
    return PeerUnreachable(
        f"{party} at {address} broke the connection off",
        expected="an answer",
        received=failure,
        action="check that its node runs, and not something else at that address",
    )


def _explain_alert(error: ssl.SSLError, address: str, party: str) -> CertificateRejected:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "wrong version" in reason or "record layer" in reason or "packet length" in reason:
        return CertificateRejected(
            f"{party} at {address} does not speak TLS",
            expected="TLS",
            received="plaintext",
            action="turn off insecure there",
        )
    return _rejected(party, reason)


def _rejected(party: str, reason: str) -> CertificateRejected:
    action = f"have {party} run comity trust add with the certificate in tls.certificate, an operator's with --operator"
    expected = "a certificate it trusts"
    return CertificateRejected(
        f"{party} does not accept our certificate", expected=expected, received=reason, action=action
    )


def _is_listening(address: str) -> bool:
    try:
        socket.create_connection(split_address(address), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True
