"""Making certificates: each party its own; for demos and tests, one authority for all parties of one machine."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from comity.transport.identity import Identity

_LIFETIME = datetime.timedelta(days=7)
_OWN_LIFETIME = datetime.timedelta(days=365)
_CLOCK_SKEW = datetime.timedelta(hours=1)


def self_signed(party: str) -> tuple[x509.Certificate, bytes]:
    """A party's own certificate, good for a year, and for nothing but to be that party.

    Args:
        party: Name of the party.

    Returns:
        The certificate, and its private key in PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(party)
    # By these TLS tells two certificates of one party apart, the old and the new.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(name, name, key, _OWN_LIFETIME)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return _of_party(builder, party).sign(key, hashes.SHA256()), _private_pem(key)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that lives as long as a demo.

    Attributes:
        certificate: Its own certificate.
        key: Its private key.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls) -> Authority:
        """Makes a new authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("comity demo authority")
        builder = _builder(name, name, key, _LIFETIME).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue(self, party: str, directory: Path) -> Identity:
        """Writes a party's certificate and key, and this authority's certificate as what it trusts.

        Args:
            party: Name of the party.
            directory: Where the three PEM files go; made if it is not there.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(party), self.certificate.subject, key, _LIFETIME)
        certificate = _of_party(builder, party).sign(self.key, hashes.SHA256())
        directory.mkdir(parents=True, exist_ok=True)
        identity = Identity(party, directory / "certificate.pem", directory / "key.pem", directory / "trust.pem")
        _write(directory / "certificate.pem", certificate.public_bytes(serialization.Encoding.PEM))
        _write(directory / "trust.pem", self.certificate.public_bytes(serialization.Encoding.PEM))
        _write(directory / "key.pem", _private_pem(key))
        return identity


def _of_party(builder: x509.CertificateBuilder, party: str) -> x509.CertificateBuilder:
    """What makes a certificate one of a party, at either end of a call, and no authority."""
    return builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(party)]), critical=False
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )
