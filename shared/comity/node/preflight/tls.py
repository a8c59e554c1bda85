"""Key, certificate and trust, as far as they can be judged without a peer."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from comity.errors import ComityError, InvalidValue, MissingFile
from comity.node.preflight.context import Context
from comity.node.preflight.rows import NotChecked, Row
from comity.transport.identity import Identity

_SOON = timedelta(days=30)
_SHORTEST_RSA = 2048
_PLAINTEXT = "insecure = true: plaintext on loopback, without certificates"
_NEW_CERTIFICATE = "make a new certificate and give it to the peers"


def check_keys(context: Context) -> Iterator[Row]:
    """The private key is that of the certificate, the certificate is the party's, and nobody else reads the key."""
    identity = context.config.identity
    if not identity.is_secure:
        yield Row("keys", "skipped", _PLAINTEXT)
        return
    certificate = _certificates(_named(identity.certificate, "certificate"))[0]
    key = _named(identity.key, "key")
    _require_match(identity, certificate)
    _require_name(identity, certificate)
    _require_usable(certificate)
    mode = key.stat().st_mode
    if mode & stat.S_IROTH:
        raise InvalidValue(
            "other users of this machine can read the private key",
            expected="0600",
            received=f"{key} with {stat.S_IMODE(mode):04o}",
            action=f"chmod 600 {key}; make a new key if it may have been read",
        )
    yield Row("keys", "passed", f"{key} belongs to the certificate of {identity.party}")


def check_certificate(context: Context) -> Iterator[Row]:
    """The certificate is valid now, and for a while."""
    identity = context.identity
    if not identity.is_secure:
        yield Row("certificate", "skipped", _PLAINTEXT)
        return
    try:
        certificate = _certificates(_named(identity.certificate, "certificate"))[0]
    except ComityError as error:
        raise NotChecked("the certificate cannot be read") from error
    yield _dated("certificate", str(identity.certificate), certificate, _NEW_CERTIFICATE)


def check_trust(context: Context) -> Iterator[Row]:
    """What is trusted can be read and is valid: one row for each certificate."""
    identity = context.identity
    if not identity.is_secure:
        yield Row("trust", "skipped", _PLAINTEXT)
        return
    trust = identity.trust
    files = sorted(each for each in trust.iterdir() if each.is_file()) if trust and trust.is_dir() else [trust]
    if not files:
        raise MissingFile(
            "no party is trusted",
            expected="the card of each peer",
            received=f"nothing in {trust}",
            action=f"ask each peer for its card, and take it with: comity trust add {_expected(context)}",
        )
    for path in files:
        for certificate in _certificates(_named(path, "trust")):
            names = ", ".join(_parties(certificate)) or certificate.subject.rfc4514_string()
            yield _dated("trust", f"{names} in {path}", certificate, "ask the peer for its new certificate")


def _expected(context: Context) -> str:
    """A party whose card the configuration waits for, and the file as `comity init` names it."""
    config = context.config
    named = [*getattr(config, "peers", {}), *config.policy.parties]
    return f"{named[0]} {named[0]}.pem" if named else "PARTY FILE"


def _named(path: Path | None, key: str) -> Path:
    if path is None or not path.is_file():
        raise MissingFile(
            f"tls.{key} cannot be read",
            expected="a PEM file",
            received=path or "nothing",
            action=f"set tls.{key} to where it is",
        )
    return path


def _certificates(path: Path) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise MissingFile(
            f"{path} cannot be read",
            expected="certificates in PEM",
            received=error.strerror,
            action="make it readable for the node's user",
        ) from error
    except ValueError as error:
        raise InvalidValue(
            f"{path} holds no certificate",
            expected="certificates in PEM",
            received="something else",
            action="name a file that begins with -----BEGIN CERTIFICATE-----",
        ) from error


def _require_match(identity: Identity, certificate: x509.Certificate) -> None:
    key = identity.private_key()
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise InvalidValue(
            "the private key is not that of the certificate",
            expected="the key that the certificate was made with",
            received=identity.key,
            action="set tls.key and tls.certificate to files that were made together",
        )


def _require_usable(certificate: x509.Certificate) -> None:
    """Checks that the other side's TLS takes such a certificate: gRPC's takes fewer than others do."""
    key = certificate.public_key()
    curves = ec.SECP256R1, ec.SECP384R1
    is_taken = (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, curves)) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size >= _SHORTEST_RSA
    )
    if not is_taken:
        name = f"{key.curve.name}" if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__.strip("_")
        raise InvalidValue(
            "peers refuse a certificate with such a key",
            expected=f"a key on P-256 or P-384, or RSA of {_SHORTEST_RSA} bits or more",
            received=name,
            action="make a new certificate, as comity init does, and give it to the peers",
        )
    try:
        uses = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return
    both = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    if not both <= uses and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in uses:
        raise InvalidValue(
            "peers refuse a certificate that is for one end of a line alone",
            expected="extended key usage of serverAuth and clientAuth, or none",
            received=", ".join(sorted(each._name for each in uses)),  # noqa: SLF001 - it has no other name
            action="make a new certificate, as comity init does, and give it to the peers",
        )


def _require_name(identity: Identity, certificate: x509.Certificate) -> None:
    names = _parties(certificate)
    # Peers take the first name for the party.
    if names[:1] != [identity.party]:
        raise InvalidValue(
            "the certificate is not this party's",
            expected=f"{identity.party} as its first subject alternative name",
            received=", ".join(names) or "none",
            action="correct party in the configuration, or make a certificate for it",
        )


def _parties(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [str(each.value) for each in extension.value]


def _dated(check: str, what: str, certificate: x509.Certificate, renewal: str) -> Row:
    now = datetime.now(UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        action = "set this machine's clock, or wait until then"
        return Row(check, "failed", f"{what} is not valid before {begins:%Y-%m-%d %H:%M} UTC", action)
    if now > ends:
        return Row(check, "failed", f"{what} expired on {ends:%Y-%m-%d %H:%M} UTC", renewal)
    left = (ends - now).days
    found = f"{what} is valid until {ends:%Y-%m-%d}, {left} days"
    return Row(check, "warning", found, renewal) if ends - now < _SOON else Row(check, "passed", found)
