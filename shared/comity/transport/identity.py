"""Who this node is, and who calls: a party is the name in its certificate, whatever address it is reached at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

from comity.errors import MissingFile, UnknownParty

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
        """
        return grpc.ssl_channel_credentials(_pem(self.trust), _pem(self.key), _pem(self.certificate))

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials for a server that takes calls of trusted parties only.

        Raises:
            MissingFile: A file is not there.
        """
        pair = (_pem(self.key), _pem(self.certificate))
        return grpc.ssl_server_credentials([pair], root_certificates=_pem(self.trust), require_client_auth=True)


def _pem(path: Path | None) -> bytes:
    if path is None or not path.is_file():
        action = "set tls.certificate, tls.key and tls.trust to PEM files"
        raise MissingFile("a TLS file is missing", expected="a PEM file", received=path or "nothing", action=action)
    return path.read_bytes()


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
