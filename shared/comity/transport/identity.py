"""Who this node is, and who calls: a party is the name in its certificate, whatever address it is reached at."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from comity.contract import IDENTIFIER
from comity.errors import ComityError, InvalidValue, MissingFile, UnknownParty
from comity.transport.trust import Trust

if TYPE_CHECKING:
    import grpc
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

log = structlog.get_logger()

Parsed = TypeVar("Parsed")

PARTY_KEY = "comity-party"
"""Metadata in which a caller names itself where there is no TLS: on loopback only."""

SESSION_KEY, CONTRACT_KEY = "comity-session", "comity-contract"
"""Metadata in which a call quotes its session, and what was agreed in it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's certificate and whom it trusts.

    Attributes:
        party: Name of this party.
        certificate: PEM file: this node's certificate; its subject alternative name is the party.
        key: PEM file: its private key.
        trust: Folder of peers' cards, each named after its party; or a PEM file of certificates that the certificates of
            all peers must lead to.
        revoked: Fingerprints (SHA-256, hexadecimal) of certificates that are refused though trusted.
        passphrase: File whose first line is the passphrase of the key; None where it has none.
    """

    party: str
    certificate: Path | None = None
    key: Path | None = None
    trust: Path | None = None
    revoked: frozenset[str] = frozenset()
    passphrase: Path | None = None

    @property
    def is_secure(self) -> bool:
        """Whether there is a certificate; without one, only plaintext on loopback is possible."""
        return self.certificate is not None

    def trusted(self) -> Trust:
        """Whom this node trusts.

        Raises:
            MissingFile: Nothing says whom.
        """
        if self.trust is None:
            raise _missing("a folder of cards, or certificates in PEM", None)
        return Trust(self.trust, self.revoked)

    def valid_until(self) -> datetime:
        """When this party's own certificate expires.

        Raises:
            MissingFile: It is not there.
            InvalidValue: It is not what it should be.
        """
        return x509.load_pem_x509_certificates(self._own()[1])[0].not_valid_after_utc

    def client_credentials(self, peer: str) -> grpc.ChannelCredentials:
        """Credentials for calls to a peer.

        Args:
            peer: Party that is called.

        Raises:
            MissingFile: A file is not there.
            InvalidValue: A file is not what it should be.
            PolicyRefusal: The peer's certificate is revoked.
        """
        import grpc

        key, certificate = self._own()
        return grpc.ssl_channel_credentials(self.trusted().roots_for(peer), key, certificate)

    def server_credentials(self, trust: Trust | None = None) -> grpc.ServerCredentials:
        """Credentials for a server that takes calls of trusted parties only, whoever these are at the time of a call.

        Args:
            trust: Whom this node trusts, where the server asks that itself as well.

        Raises:
            MissingFile: A file is not there.
            InvalidValue: A file is not what it should be.
        """
        import grpc

        trust = trust or self.trusted()
        current = self._served(trust)
        self._warn_if_alone(current)

        def changed() -> grpc.ServerCertificateConfiguration | None:
            """What the next handshake goes by; None where nothing changed."""
            nonlocal current
            try:
                latest = self._served(trust)
            except (ComityError, OSError) as error:
                # Somebody is at the files: those who were trusted still are.
                log.warning("trust-not-read", reason=str(error))
                return None
            if latest == current:
                return None
            current = latest
            log.info("trust-changed", trust=str(self.trust))
            self._warn_if_alone(current)
            return _configuration(current)

        # The stubs do not know of None for no change.
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", changed)
        return grpc.dynamic_ssl_server_credentials(_configuration(current), fetch, require_client_authentication=True)

    def _served(self, trust: Trust) -> tuple[bytes, bytes, bytes]:
        """Own key, own certificate, and what callers' certificates must lead to."""
        key, certificate = self._own()
        # gRPC takes no empty trust: with its own certificate alone it lets in nobody but itself, whom it has no card of.
        return key, certificate, trust.roots() or certificate

    def _warn_if_alone(self, served: tuple[bytes, bytes, bytes]) -> None:
        _, certificate, roots = served
        if roots == certificate:
            action = "add a party with comity trust add PARTY FILE"
            log.warning("no-party-is-trusted", trust=str(self.trust), action=action)

    def password(self) -> bytes | None:
        """The passphrase of the key; None where none is configured.

        Raises:
            MissingFile: Its file is not there.
            InvalidValue: Its file cannot be read, or is empty.
        """
        if self.passphrase is None:
            return None
        try:
            first = self.passphrase.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
        except FileNotFoundError as error:
            raise MissingFile(
                "the passphrase of the key is missing",
                expected="a file whose first line it is",
                received=self.passphrase,
                action=_DECRYPTED,
            ) from error
        except OSError as error:
            raise InvalidValue(
                f"{self.passphrase} cannot be used",
                expected="a readable file",
                received=error.strerror or error,
                action=_DECRYPTED,
            ) from error
        if not first:
            raise InvalidValue(
                f"{self.passphrase} cannot be used",
                expected="the key's passphrase in its first line",
                received="an empty line",
                action=_DECRYPTED,
            )
        return first

    def private_key(self) -> PrivateKeyTypes:
        """This party's private key, decrypted where it has a passphrase.

        Raises:
            MissingFile: It is not there.
            InvalidValue: It is none, or the passphrase is not its own.
        """
        password = self.password()
        return _read(self.key, "a private key", lambda data: _private_key(data, password))

    def _own(self) -> tuple[bytes, bytes]:
        """This node's key and its certificates alone, each checked; the key as gRPC takes it, decrypted."""
        key = self.private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key, _read(self.certificate, "a certificate", _certificates)


def _configuration(files: tuple[bytes, bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    import grpc

    key, certificate, roots = files
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=roots)


def _private_key(data: bytes, password: bytes | None) -> PrivateKeyTypes:
    """A key; where `cryptography` tells what is wrong only by its words, that is told by looking."""
    if b"ENCRYPTED" in data and password is None:
        raise InvalidValue(
            "the private key is encrypted", expected="its passphrase", received="none", action=_DECRYPTED
        )
    if b"ENCRYPTED" not in data:
        return load_pem_private_key(data, None)
    try:
        return load_pem_private_key(data, password)
    except ValueError as error:
        raise InvalidValue(
            "the private key cannot be decrypted", expected="its passphrase", received="another", action=_DECRYPTED
        ) from error


def _certificates(data: bytes) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in x509.load_pem_x509_certificates(data))


def _missing(what: str, path: Path | None) -> MissingFile:
    return MissingFile("a TLS file is missing", expected=what, received=path or "nothing", action=_ACTION)


_DECRYPTED = "set tls.passphrase_file to a file whose first line is the passphrase of tls.key"
_ACTION = "set tls.certificate, tls.key and tls.trust; comity init makes them"


def _read(path: Path | None, what: str, parse: Callable[[bytes], Parsed]) -> Parsed:
    what = f"{what} in PEM"
    if path is None or not path.is_file():
        raise _missing(what, path)
    try:
        return parse(path.read_bytes())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidValue(
            f"{path} cannot be used", expected=what, received="something else", action=_ACTION
        ) from error
    except OSError as error:
        raise InvalidValue(
            f"{path} cannot be used", expected="a readable file", received=error.strerror or error, action=_ACTION
        ) from error


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
            "the caller's certificate names no party",
            expected="a subject alternative name",
            received="none",
            action="make a certificate with comity init; its subject alternative name is the party",
        )
    # Plaintext servers listen on loopback only; see `comity.transport.server`.
    return metadata(context).get(PARTY_KEY, "")


class Shown(NamedTuple):
    """What a caller shows of itself.

    Attributes:
        party: The party that it says it is.
        certificate: In PEM; empty without TLS.
    """

    party: str
    certificate: bytes

    def require(self, trust: Trust | None) -> None:
        """Checks that the certificate may stand for the party, as the trusted cards are now.

        Args:
            trust: Whom this node trusts; None without TLS.

        Raises:
            RefusedError: The certificate is of none that is trusted, or is revoked.
            CertificateRejected: It is not the party's that it names.
        """
        if trust is None:
            return
        if not self.certificate:
            raise UnknownParty("the caller shows no certificate", expected="a certificate", received="none")
        trust.require(self.party, self.certificate)


def shown_by(context: grpc.ServicerContext) -> Shown:
    """What the caller of a call shows of itself.

    Raises:
        UnknownParty: The certificate names no party.
    """
    certificates = cast("Sequence[bytes]", context.auth_context().get("x509_pem_cert", ()))
    return Shown(caller(context), certificates[0] if certificates else b"")


def metadata(context: grpc.ServicerContext) -> dict[str, str]:
    """A call's textual metadata."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def session_named(context: grpc.ServicerContext) -> str:
    """The session that a call quotes; empty for none. Whether there is such a one is not looked at."""
    quoted = metadata(context).get(SESSION_KEY, "")
    return quoted if re.fullmatch(IDENTIFIER, quoted) else ""
