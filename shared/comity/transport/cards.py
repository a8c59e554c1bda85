"""A party's card: the one PEM file that parties exchange, with a certificate and the public half of a receipt key.

A card says nothing that is secret. It comes by mail; that it is the party's own is known once somebody has compared the
certificate's fingerprint with it over another way, by telephone say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from comity.errors import InvalidValue, MissingFile

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_DAMAGED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What a damaged certificate ends in."""

_LARGEST = 256 * 2**10
"""Bytes of a file that is read as a card; a certificate takes one or two thousand."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a party shows of itself.

    Attributes:
        certificates: Its certificate; more of them where an old and a new one are both good.
        receipt_key: Ed25519 key that it signs its receipts with, hexadecimal; None where the file has none.
    """

    certificates: tuple[x509.Certificate, ...]
    receipt_key: str | None = None

    @property
    def roots(self) -> bytes:
        """The certificates alone, in PEM."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.certificates)

    def to_pem(self) -> bytes:
        """The card as a file."""
        if self.receipt_key is None:
            return self.roots
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.receipt_key))
        return self.roots + key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_card(path: Path) -> Card:
    """Reads a card.

    Raises:
        MissingFile: There is no such file.
        InvalidValue: It cannot be read, holds a private key or no certificate, or a block in it is broken.
    """
    if not path.is_file():
        received = "a folder" if path.is_dir() else "nothing"
        raise MissingFile(
            f"{path} cannot be read", expected="a party's card in PEM", received=received, action="check the path"
        )
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InvalidValue(
            f"{path} cannot be read", expected="a readable file", received=error.strerror or error
        ) from error
    if len(data) > _LARGEST:
        raise InvalidValue(f"{path} is no card", expected=f"at most {_LARGEST} bytes", received="more")
    return parse_card(data, str(path))


def parse_card(data: bytes, source: str) -> Card:
    """Reads a card from its bytes.

    Args:
        data: PEM.
        source: What to call it in errors.

    Raises:
        InvalidValue: It holds a private key or no certificate, or a block in it is broken.
    """
    blocks = [(match[1].decode(), match[0]) for match in _BLOCK.finditer(data)]
    if b"PRIVATE KEY-----" in data:
        # Whoever is sent this must tell its owner, and not use it.
        raise InvalidValue(
            f"{source} holds a PRIVATE KEY",
            expected="certificate and public key alone",
            received="a private key",
            action="delete it here; its owner must make a new key, as this one has been given away",
        )
    try:
        certificates = tuple(_whole(pem) for label, pem in blocks if label == "CERTIFICATE")
        keys = [load_pem_public_key(pem) for label, pem in blocks if label == "PUBLIC KEY"]
    except _DAMAGED as error:
        raise InvalidValue(
            f"{source} cannot be used",
            expected="certificates in PEM",
            received="a damaged block",
            action="have it sent again as a file",
        ) from error
    if not certificates:
        received = "something else" if data.strip() else "an empty file"
        raise InvalidValue(
            f"{source} cannot be used",
            expected="certificates in PEM",
            received=received,
            action="ask the party for the file that comity init wrote beside its node.toml",
        )
    if len(keys) > 1 or not all(isinstance(each, Ed25519PublicKey) for each in keys):
        received = f"{len(keys)} public keys" if len(keys) > 1 else "a key of another kind"
        raise InvalidValue(f"{source} cannot be used", expected="one Ed25519 receipt key", received=received)
    receipt_key = keys[0].public_bytes(Encoding.Raw, PublicFormat.Raw).hex() if keys else None
    return Card(certificates, receipt_key)


def _whole(pem: bytes) -> x509.Certificate:
    """A certificate all of which can be read.

    Parts are read when they are asked for, so that damage would be found where nobody expects it.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    certificate.public_key()
    for part in (
        "extensions",
        "subject",
        "issuer",
        "not_valid_before_utc",
        "not_valid_after_utc",
        "signature_hash_algorithm",
    ):
        getattr(certificate, part)
    return certificate


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, 64 hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def spelled(fingerprint: str) -> str:
    """A fingerprint as people read it to each other, and as openssl prints it: `AB:CD:…`."""
    return ":".join(re.findall("..", fingerprint.upper()))


def named_party(certificate: x509.Certificate) -> str | None:
    """The party that a certificate is of: the first of its alternative names; None where it has none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    first = next(iter(names), None)
    return first.value if isinstance(first, x509.DNSName) else None
