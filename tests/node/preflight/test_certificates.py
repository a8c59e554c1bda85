"""Key, certificate and trust, each broken on purpose."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from comity.transport.certificates import Authority

DAY = datetime.timedelta(days=1)


def certify(home: Any, by: Authority, *, begins: datetime.timedelta, ends: datetime.timedelta, name: str = "") -> None:
    """Replaces a party's certificate by one over the same key, of other dates or another name."""
    key = load_pem_private_key(home.identity.key.read_bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hospital")]))
        .issuer_name(by.certificate.subject)
        .public_key(key.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )
    if name:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    certificate = builder.sign(by.key, hashes.SHA256())
    home.identity.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(
    ("begins", "ends", "verdict", "part"),
    [
        (-DAY, 90.5 * DAY, "passed", "90 days"),
        (-DAY, 29 * DAY, "warning", "28 days"),
        (-2 * DAY, -DAY, "failed", "expired on"),
        (DAY, 90 * DAY, "failed", "is not valid before"),
    ],
)
def test_the_dates_of_the_certificate(
    teacher: Any, authority: Authority, begins: Any, ends: Any, verdict: str, part: str
) -> None:
    certify(teacher, authority, begins=begins, ends=ends, name="hospital")
    found = teacher.check()
    assert found["certificate"].verdict == verdict
    assert part in found["certificate"].found
    assert found["keys"].verdict == "passed"
    assert found.code == (2 if verdict == "failed" else 0)
    assert bool(found["certificate"].action) == (verdict != "passed")


@pytest.mark.parametrize("name", ["", "bank"])
def test_a_certificate_of_somebody_else(teacher: Any, authority: Authority, name: str) -> None:
    certify(teacher, authority, begins=-DAY, ends=90 * DAY, name=name)
    teacher.check().only("keys", f"received {name or 'none'}", "correct party")


def test_a_key_of_another_certificate(teacher: Any, authority: Authority) -> None:
    other = authority.issue("hospital", teacher.folder / "other")
    assert other.key is not None
    shutil.copy(other.key, teacher.identity.key)
    teacher.check().only("keys", "not that of the certificate", "made together")


def test_a_key_that_anybody_reads(teacher: Any) -> None:
    teacher.identity.key.chmod(0o644)
    teacher.check().only("keys", "key.pem with 0644", "chmod 600")
    teacher.identity.key.chmod(0o640)
    assert teacher.check()["keys"].verdict == "passed"


def test_a_key_that_is_none(teacher: Any) -> None:
    teacher.identity.key.write_text("-----BEGIN NOTHING-----")
    teacher.check().only(
        "keys", "key.pem cannot be used: expected a private key in PEM", "set tls.certificate, tls.key"
    )


def encrypted(path: Path, passphrase: bytes) -> None:
    key = load_pem_private_key(path.read_bytes(), None)
    lock = serialization.BestAvailableEncryption(passphrase)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))


def test_a_key_with_a_passphrase(teacher: Any) -> None:
    encrypted(teacher.identity.key, b"four words and more")
    teacher.check().only("keys", "the private key is encrypted", "set tls.passphrase_file")
    teacher.values["tls"]["passphrase_file"] = "passphrase"
    teacher.check().only("keys", "the passphrase of the key is missing", "set tls.passphrase_file")
    (teacher.folder / "passphrase").write_text("three words\n")
    teacher.check().only("keys", "the private key cannot be decrypted", "set tls.passphrase_file")
    (teacher.folder / "passphrase").write_text("\n")
    teacher.check().only("keys", "received an empty line", "set tls.passphrase_file")
    (teacher.folder / "passphrase").write_text("four words and more\n")
    assert teacher.check()["keys"].verdict == "passed"


@pytest.mark.parametrize("name", ["key", "certificate"])
def test_files_that_are_not_there(teacher: Any, name: str) -> None:
    getattr(teacher.identity, name).unlink()
    found = teacher.check()
    found.only("keys", f"tls.{name} cannot be read", f"set tls.{name}")
    assert found["certificate"].verdict == ("skipped" if name == "certificate" else "warning")


def test_a_certificate_that_is_none(teacher: Any) -> None:
    teacher.identity.certificate.write_text("hello")
    teacher.check().only("keys", "holds no certificate", "BEGIN CERTIFICATE")


def test_neither_certificate_nor_insecure(teacher: Any) -> None:
    del teacher.values["tls"]
    found = teacher.check()
    found.only("keys", "tls is missing", "configure [tls]")
    assert [found[name].verdict for name in ("certificate", "trust", "listen")] == ["skipped"] * 3


def test_trust_that_is_no_certificate(teacher: Any) -> None:
    teacher.identity.trust.write_text("nobody")
    teacher.check().only("trust", "trust.pem holds no certificate", "BEGIN CERTIFICATE")
    teacher.identity.trust.unlink()
    teacher.check().only("trust", "tls.trust cannot be read", "set tls.trust")


def test_trust_in_a_party_whose_certificate_has_expired(teacher: Any, make_home: Any, authority: Authority) -> None:
    peer = make_home("clinic")
    certify(peer, authority, begins=-2 * DAY, ends=-DAY, name="clinic")
    shutil.copy(peer.identity.certificate, teacher.identity.trust)
    teacher.check().only("trust", "clinic in ", "expired on", "ask the peer")


def test_trust_in_a_folder_is_a_row_for_each(teacher: Any, make_home: Any) -> None:
    folder: Path = teacher.folder / "trusted"
    folder.mkdir()
    teacher.values["tls"]["trust"] = "trusted"
    teacher.check().only("trust", "no party is trusted", "comity trust add")
    for party in ("clinic", "bank"):
        shutil.copy(make_home(party).identity.certificate, folder / f"{party}.pem")
    rows = [row.found for row in teacher.check().rows if row.check == "trust"]
    assert [row.split()[0] for row in rows] == ["bank", "clinic"]


def with_key(home: Any, key: Any, *uses: x509.ObjectIdentifier) -> None:
    """Gives a party another key, and a certificate of its own over it."""
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hospital")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 90 * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hospital")]), critical=False)
    )
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    home.identity.certificate.write_bytes(builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM))
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    home.identity.key.write_bytes(key.private_bytes(*form))


@pytest.mark.parametrize(
    ("key", "uses", "said"),
    [
        (ed25519.Ed25519PrivateKey.generate, (), "Ed25519"),
        (lambda: ec.generate_private_key(ec.SECP521R1()), (), "secp521r1"),
        (lambda: rsa.generate_private_key(65537, 1024), (), "RSA"),
        (lambda: ec.generate_private_key(ec.SECP256R1()), (ExtendedKeyUsageOID.SERVER_AUTH,), "serverAuth"),
        (lambda: ec.generate_private_key(ec.SECP256R1()), (ExtendedKeyUsageOID.CLIENT_AUTH,), "clientAuth"),
    ],
)
def test_a_certificate_that_peers_would_refuse(teacher: Any, key: Any, uses: tuple[Any, ...], said: str) -> None:
    """A machine of one's own may take it; the other side's TLS does not, and does not say why."""
    with_key(teacher, key(), *uses)
    row = teacher.check()["keys"]
    assert row.verdict == "failed"
    assert "peers refuse a certificate" in row.found
    assert said in row.found
    assert "comity init" in row.action


def test_certificates_that_peers_take(teacher: Any) -> None:
    both = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    for key, uses in ((ec.generate_private_key(ec.SECP384R1()), both), (rsa.generate_private_key(65537, 2048), ())):
        with_key(teacher, key, *uses)
        assert teacher.check()["keys"].verdict == "passed"
