"""Whom a node trusts: a folder with a card for each party, or one file with an authority for all.

A certificate in a folder vouches for the party that its file is named after and for no other. TLS alone would not see
to that: to it every trusted certificate, even one that says that it is no authority, may issue others in any name.
"""

from __future__ import annotations

import datetime
import threading
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from comity.errors import (
    CertificateRejected,
    ComityError,
    InvalidValue,
    MissingFile,
    PolicyRefusal,
    UnknownParty,
    UsageError,
)
from comity.transport.cards import Card, fingerprint, read_card, spelled

log = structlog.get_logger()

SUFFIX = ".pem"

Stamp = tuple[int, int, int]
"""Inode, size and time of change of a file."""

_ITSELF = ""
"""The name under which the folder, or the one file, has its stamp."""

_REMEMBERED = 1000
"""Certificates whose check is remembered; a party may issue itself any number of them."""


class Trust:
    """The certificates that a node trusts, as the files are now.

    Args:
        path: Folder of cards, or a file of certificates that lead to all parties'.
        revoked: Fingerprints of certificates that are refused all the same.
    """

    def __init__(self, path: Path, revoked: frozenset[str] = frozenset()) -> None:
        self._path = path
        self._revoked = revoked
        self._lock = threading.RLock()
        self._stamps: dict[str, Stamp] = {}
        self._cards: dict[str, Card] = {}
        self._authority: Card | None = None
        self._good: set[tuple[str, bytes]] = set()

    def refresh(self) -> bool:
        """Reads the files again where they changed; says whether they did.

        Raises:
            MissingFile: There is neither folder nor file.
            InvalidValue: The file holds no certificates.
        """
        with self._lock:
            stamps = self._look()
            if stamps == self._stamps:
                return False
            if self._path.is_dir():
                cards, authority = read_cards(self._path), None
            else:
                cards, authority = {}, read_card(self._path)
            self._stamps, self._cards, self._authority = stamps, cards, authority
            self._good.clear()
            return True

    def revoke(self, revoked: frozenset[str]) -> None:
        """Refuses these fingerprints from now on, and no others."""
        with self._lock:
            self._revoked = revoked
            self._good.clear()

    def validity(self) -> dict[str, datetime.datetime]:
        """Until when the certificates of each party are good, the last of several; of one authority under no name.

        Raises:
            MissingFile: There is neither folder nor file.
            InvalidValue: The file holds no certificates.
        """
        with self._lock:
            self.refresh()
            cards = {_ITSELF: self._authority} if self._authority is not None else self._cards
            return {name: max(each.not_valid_after_utc for each in card.certificates) for name, card in cards.items()}

    def roots(self) -> bytes:
        """All trusted certificates in PEM; nothing where nobody is trusted."""
        with self._lock:
            self.refresh()
            cards = [self._authority] if self._authority is not None else list(self._cards.values())
        return b"".join(card.roots for card in cards)

    def roots_for(self, party: str) -> bytes:
        """The certificates that a party which is called must lead to, in PEM.

        Raises:
            MissingFile: There is no card of this party.
            PolicyRefusal: All that it is vouched for by is revoked.
        """
        with self._lock:
            self.refresh()
            card = self._authority or self._cards.get(party)
        if card is None:
            raise MissingFile(
                f"no card of {party} is trusted",
                expected=self._path / f"{party}{SUFFIX}",
                received="nothing",
                action=f"comity trust add {party} FILE, with the card that {party} sent you",
            )
        good = tuple(each for each in card.certificates if fingerprint(each) not in self._revoked)
        if not good:
            raise _revoked(party, card.certificates[0])
        return Card(good).roots

    def receipt_key(self, party: str) -> str | None:
        """The receipt key on a party's card, hexadecimal; None where nothing is known of it."""
        with self._lock:
            self.refresh()
            card = self._cards.get(party)
        return card.receipt_key if card is not None else None

    def vouched_key(self, party: str) -> str:
        """The receipt key of a party that no connection vouches for.

        Raises:
            UnknownParty: There is no card of this party, or none with a receipt key.
            PolicyRefusal: All that it is vouched for by is revoked.
            CertificateRejected: Its card has expired, or is not good yet.
        """
        with self._lock:
            self.refresh()
            card = self._cards.get(party)
        if card is None or card.receipt_key is None:
            raise UnknownParty(
                "no receipt key of the party is known here",
                expected="a party whose card is trusted",
                received=party,
                action="comity trust add PARTY FILE, with the card that it sent you",
            )
        good = [each for each in card.certificates if fingerprint(each) not in self._revoked]
        if not good:
            raise _revoked(party, card.certificates[0])
        now = datetime.datetime.now(datetime.UTC)
        if not any(each.not_valid_before_utc <= now <= each.not_valid_after_utc for each in good):
            until = f"{good[-1].not_valid_before_utc:%Y-%m-%d} to {good[-1].not_valid_after_utc:%Y-%m-%d}"
            raise CertificateRejected(
                f"{party}'s card is not good now",
                expected=f"{now:%Y-%m-%d} in its dates",
                received=until,
                action=f"ask {party} for a new card, and check this machine's clock",
            )
        return card.receipt_key

    def require(self, party: str, pem: bytes) -> None:
        """Checks that a certificate, which TLS has accepted, may stand for the party that it names.

        Args:
            party: The party that it names.
            pem: The certificate.

        Raises:
            PolicyRefusal: It, or what it was issued by, is revoked.
            UnknownParty: No certificate of this party is trusted.
            CertificateRejected: It is neither this party's certificate nor issued by it.
        """
        with self._lock:
            try:
                if not self._is_current(party):
                    self.refresh()
            except UsageError as error:
                log.warning("trust-not-read", reason=str(error))
                action = "its operator finds the reason in its log"
                raise UnknownParty("this node cannot tell whom it trusts", action=action) from error
            if (party, pem) in self._good:
                return
            certificate = x509.load_pem_x509_certificate(pem)
            self.require_unrevoked(party, certificate)
            if self._authority is None:
                self._require_vouched(party, certificate)
            if len(self._good) >= _REMEMBERED:
                self._good.clear()
            self._good.add((party, pem))

    def require_unrevoked(self, party: str, certificate: x509.Certificate) -> None:
        """Checks a certificate against the deny-list.

        Raises:
            PolicyRefusal: It is revoked.
        """
        if fingerprint(certificate) in self._revoked:
            raise _revoked(party, certificate)

    def _require_vouched(self, party: str, certificate: x509.Certificate) -> None:
        card = self._cards.get(party)
        if card is None:
            raise UnknownParty(
                "the caller is not trusted",
                expected="a party whose card is here",
                received=party,
                action=f"have this node's operator run comity trust add {party} FILE",
            )
        for each in card.certificates:
            if each == certificate:
                return
            if _issued(each, certificate):
                self.require_unrevoked(party, each)
                return
        raise CertificateRejected(
            f"the certificate is not {party}'s",
            expected=f"{spelled(fingerprint(card.certificates[0]))}, or one issued by it",
            received=spelled(fingerprint(certificate)),
            action=f"use the certificate on the card that {party} gave this node's operator, or send the new card",
        )

    def _is_current(self, party: str) -> bool:
        """Whether what was read of one party is what is there: a look at two files, however many cards there are."""
        names = [_ITSELF] if self._authority is not None else [_ITSELF, f"{party}{SUFFIX}"]
        if not all(name in self._stamps for name in names):
            return False
        try:
            return all(_stamp(self._path / name) == self._stamps[name] for name in names)
        except OSError:
            return False

    def _look(self) -> dict[str, Stamp]:
        try:
            files = sorted(self._path.glob(f"*{SUFFIX}")) if self._path.is_dir() else []
            return {_ITSELF: _stamp(self._path)} | {file.name: _stamp(file) for file in files}
        except OSError as error:
            raise MissingFile(
                "whom to trust is missing",
                expected="a folder of cards, or a file of certificates in PEM",
                received=f"{self._path}: {error.strerror}",
                action="comity trust add makes the folder; or configure another",
            ) from error


def read_cards(folder: Path) -> dict[str, Card]:
    """The cards in a folder, by the party that each file is named after; what is no card is passed over."""
    cards = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            cards[path.stem] = read_card(path)
        except (InvalidValue, MissingFile) as error:
            log.warning("card-ignored", file=str(path), reason=str(error))
    return cards


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether a certificate was issued directly by another, which may do so now."""
    now = datetime.datetime.now(datetime.UTC)
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return constraints.ca and issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc


def _revoked(party: str, certificate: x509.Certificate) -> ComityError:
    return PolicyRefusal(
        f"policy.revoked refuses {party}'s certificate",
        expected="one that is not revoked",
        received=spelled(fingerprint(certificate)),
        action=f"take {party}'s new card with comity trust add",
    )
