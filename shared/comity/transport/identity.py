"""Who this node is, and who calls: a party is the name in its certificate, whatever address it is reached at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from comity.errors import InvalidValue, MissingFile, UnknownParty

PARTY_KEY = "comity-party"
"""Metadata in which a caller names itself where there is no TLS: on loopback only."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's certificate and whom it trusts.

    Attributes:
        party: Name of this party.
        certificate: PEM file: this node's certificate; its subject alternative name is the party.
        key: PEM file: its private key.
        trust: PEM file: certificates that peers' certificates must lead to.
    """

    party: str
    certificate: Path | None = None
    key: Path | None = None
    trust: Path | None = None

    @property
    def is_secure(self) -> bool:
        """Whether there is a certificate; without one, only plaintext on loopback is possible."""
        return self.certificate is not None

    def client_credentials(self) -> grpc.ChannelCredentials:
        """Credentials for calls to peers.

        Raises:
            MissingFile: A file is not there.
            InvalidValue: A file is not what it should be.
        """
        trust, key, certificate = self._files()
        return grpc.ssl_channel_credentials(trust, key, certificate)

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials for a server that takes calls of trusted parties only.

        Raises:
            MissingFile: A file is not there.
            InvalidValue: A file is not what it should be.
        """
        trust, key, certificate = self._files()
        return grpc.ssl_server_credentials([(key, certificate)], root_certificates=trust, require_client_auth=True)

    def _files(self) -> tuple[bytes, bytes, bytes]:
        """What to trust, this node's key and its certificate, each checked."""
        trust = _pem(self.trust, "certificates", x509.load_pem_x509_certificates)
        key = _pem(self.key, "a private key without a password", lambda data: load_pem_private_key(data, None))
        return trust, key, _pem(self.certificate, "a certificate", x509.load_pem_x509_certificates)


def _pem(path: Path | None, what: str, parse: Callable[[bytes], object]) -> bytes:
    action = "set tls.certificate, tls.key and tls.trust to PEM files"
    if path is None or not path.is_file():
        raise MissingFile("a TLS file is missing", expected=f"{what} in PEM", received=path or "nothing", action=action)
    data = path.read_bytes()
    try:
        parse(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidValue(
            f"{path} cannot be used", expected=f"{what} in PEM", received="something else", action=action
        ) from error
    return data


def caller(context: grpc.ServicerContext) -> str:
    """The party that makes a call.

    Raises:
        UnknownParty: The certificate names none.
    """
    authenticated = context.auth_context()
    if b"ssl" in authenticated.get("transport_security_type", ()):
        # The stubs take a property for one value; it is a sequence of them.
        names = cast("Sequence[bytes]", authenticated.get("x509_subject_alternative_name", ()))
        if names:
            return names[0].decode()
        raise UnknownParty(
            "the caller's certificate names no party", expected="a subject alternative name", received="none"
        )
    # Plaintext servers listen on loopback only; see `comity.transport.server`.
    return metadata(context).get(PARTY_KEY, "")


def metadata(context: grpc.ServicerContext) -> dict[str, str]:
    """A call's textual metadata."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
