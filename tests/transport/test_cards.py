"""A card: what parties show of themselves, in one PEM file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import InvalidValue, MissingFile
from comity.ledger.receipts import Signer
from comity.transport.cards import Card, fingerprint, named_party, parse_card, read_card, spelled
from comity.transport.certificates import self_signed

CERTIFICATE, PRIVATE = self_signed("clinic")
RECEIPT_KEY = Signer.from_seed(b"c" * 32, "clinic").public_key
CARD = Card((CERTIFICATE,), RECEIPT_KEY)


def test_a_card_is_read_as_it_was_written() -> None:
    assert parse_card(CARD.to_pem(), "card") == CARD
    assert parse_card(CARD.roots, "card") == Card((CERTIFICATE,))


def test_what_mail_programs_put_around_it_does_no_harm() -> None:
    text = b"Bag Attributes\r\n" + CARD.to_pem().replace(b"\n", b"\r\n") + b"\n-- \nThe clinic\n"
    assert parse_card(text, "card") == CARD
    assert b"Bag" not in parse_card(text, "card").to_pem()


def test_roots_are_certificates_alone() -> None:
    assert CARD.roots.count(b"-----BEGIN") == 1
    assert b"PUBLIC KEY" not in CARD.roots


def test_a_certificate_is_good_for_a_year_and_its_party_alone() -> None:
    assert named_party(CERTIFICATE) == "clinic"
    assert 365 <= (CERTIFICATE.not_valid_after_utc - CERTIFICATE.not_valid_before_utc).days <= 366


def test_a_fingerprint_is_spelled_as_openssl_does() -> None:
    assert spelled("0aff") == "0A:FF"
    assert spelled(fingerprint(CERTIFICATE)).replace(":", "").lower() == fingerprint(CERTIFICATE)
    assert len(fingerprint(CERTIFICATE)) == 64


EC_KEY = (
    ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)
RECEIPT_BLOCK = CARD.to_pem().removeprefix(CARD.roots)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"hello", "something else"),
        (b"\x00\xff" * 100, "something else"),
        (RECEIPT_BLOCK, "something else"),
        (CARD.roots.replace(b"MII", b"AAA", 1), "damaged"),
        (CARD.to_pem() + RECEIPT_BLOCK, "2 public keys"),
        (CARD.roots + EC_KEY, "another kind"),
        (CARD.to_pem() + PRIVATE, "PRIVATE KEY.*delete it"),
        (PRIVATE, "PRIVATE KEY"),
        (PRIVATE.replace(b"PRIVATE", b"ENCRYPTED PRIVATE"), "PRIVATE KEY"),
        (PRIVATE.replace(b"PRIVATE", b"EC PRIVATE")[:-40], "PRIVATE KEY"),
    ],
)
def test_what_is_no_card_is_refused_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(InvalidValue, match=words) as caught:
        parse_card(data, "card")
    assert "MI" not in str(caught.value), "what is in the file is not repeated"


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    block = b"-----BEGIN CERTIFICATE-----\n" + data + b"\n-----END CERTIFICATE-----\n"
    with pytest.raises(InvalidValue):
        parse_card(block, "card")


def test_a_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "card.pem"
    path.write_bytes(CARD.to_pem() + b"\n" * 2**20)
    with pytest.raises(InvalidValue, match="at most"):
        read_card(path)
    with pytest.raises(MissingFile, match="a folder"):
        read_card(tmp_path)
    with pytest.raises(MissingFile, match="nothing"):
        read_card(tmp_path / "none")
