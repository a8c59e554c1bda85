"""Taking other parties' cards into a node's folder. Imports no torch: it only handles files."""

from __future__ import annotations

import datetime
import re
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomlkit
from cryptography import x509

from comity.contract import IDENTIFIER
from comity.errors import InvalidValue, MissingFile
from comity.node.validation import read_toml, validated
from comity.session.policy import Policy
from comity.transport.addresses import split_address
from comity.transport.cards import Card, fingerprint, named_party, read_card
from comity.transport.trust import SUFFIX

Standing = Literal["good", "expired", "not valid yet", "revoked", "no card"]


@dataclass(frozen=True, slots=True)
class TrustedParty:
    """A certificate in one of a node's folders.

    Attributes:
        party: Whom it vouches for; `*` for an authority that vouches for all.
        file: The file that it is in.
        standing: Whether it is accepted, and if not, why.
        operator: Whether it is an operator's.
        card: The card; None where the file holds none.
        certificate: The certificate; None where the file holds none.
    """

    party: str
    file: Path
    standing: Standing
    operator: bool = False
    card: Card | None = None
    certificate: x509.Certificate | None = None


@dataclass(frozen=True, slots=True)
class CardImport:
    """A card to be imported.

    Attributes:
        party: Whose it should be.
        file: The card.
        operator: Whether it is an operator's, who may drive this node, and not a peer's.
        address: Where the party's node listens, to be written into the configuration; empty to leave that as it is.
        replace: Whether another card of this party may be replaced.
    """

    party: str
    file: Path
    operator: bool = False
    address: str = ""
    replace: bool = False


class TrustStore:
    """Whom a node, or an operator's machine, knows.

    Args:
        folder: Folder of the node's configuration, or what `comity init operator` made.

    Raises:
        MissingFile: There is no such folder, or it is neither.
        InvalidValue: The configuration cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._config = folder / "node.toml"
        if not self._config.is_file() and not (folder / "trust").is_dir():
            raise MissingFile(
                "no node is configured here",
                expected=self._config,
                received="nothing",
                action="name its folder with --node, or make one with comity init",
            )
        values: dict[str, Any] = read_toml(self._config) if self._config.is_file() else {}
        self._party = values.get("party")
        self.trust = folder / _path(values, "tls", "trust", "trust")
        self.operators = folder / _path(values, "control", "operators", "operators")
        self._policy = validated(Policy, values.get("policy", {}), f"{self._config}: policy")

    def add(self, introduction: CardImport) -> tuple[TrustedParty, bool]:
        """Takes a party's card.

        Returns:
            What was taken, and whether it is new here.

        Raises:
            MissingFile: The file is not there.
            InvalidValue: It is no card of this party, or not to be used now; nothing was changed then.
        """
        party, file, operator = introduction.party, introduction.file, introduction.operator
        address = introduction.address
        card = read_card(file)
        certificate = self._required(party, card, file, operator=operator)
        edited = self._with_address(party, address, operator=operator) if address else None
        folder = self.operators if operator else self.trust
        if folder.exists() and not folder.is_dir():
            raise InvalidValue(
                f"{folder} is one authority for all",
                expected="a folder of cards",
                received="a file",
                action="set tls.trust to a folder, and put the authority there as PARTY.pem for each of its parties",
            )
        taken = folder / f"{party}{SUFFIX}"
        new = self._is_new(taken, card, replace=introduction.replace)
        self._require_own_subject(taken, certificate)
        try:
            if new:
                folder.mkdir(parents=True, exist_ok=True)
                _write(taken, card.to_pem())
            if edited is not None:
                _write(self._config.resolve(), edited)
        except OSError as error:
            raise InvalidValue(
                f"{error.filename or folder} cannot be written", expected="a writable folder", received=error.strerror
            ) from error
        return TrustedParty(party, taken, self._standing(certificate), operator, card, certificate), new

    def all(self) -> list[TrustedParty]:
        """Every trusted party, peers first."""
        known = []
        if self.trust.is_file():
            card = read_card(self.trust)
            known += [
                TrustedParty("*", self.trust, self._standing(each), False, card, each) for each in card.certificates
            ]
        for folder, operator in ((self.trust, False), (self.operators, True)):
            for file in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
                try:
                    card = read_card(file)
                except (InvalidValue, MissingFile):
                    known.append(TrustedParty(file.stem, file, "no card", operator))
                    continue
                known += [
                    TrustedParty(file.stem, file, self._standing(each), operator, card, each)
                    for each in card.certificates
                ]
        return known

    def _required(self, party: str, card: Card, file: Path, *, operator: bool) -> x509.Certificate:
        """The certificate of a card that may be taken; of two, while a party renews its own, the one that is good longest."""
        if not re.fullmatch(IDENTIFIER, party):
            raise InvalidValue(
                "that is no party's name",
                expected="letters, digits, dots, dashes and underscores, 64 at most",
                received=repr(party[:80]),
                action="name the party as its certificate does",
            )
        found = card.certificates
        if len(found) not in {1, 2} or len({each.subject for each in found}) != len(found):
            raise InvalidValue(
                f"{file} is no card",
                expected="one certificate, or an old and a new one with another subject",
                received=len(found),
                action="ask for the card again, and how it was made",
            )
        *others, certificate = sorted(found, key=lambda each: each.not_valid_after_utc)
        for each in others:
            _require_named(party, each, file)
        if party == self._party and not operator:
            raise InvalidValue(
                "that is this node's own party",
                expected="another party's name",
                received=party,
                action=f"send {file.name} to the others, and take theirs",
            )
        _require_named(party, certificate, file)
        standing = self._standing(certificate)
        if standing != "good":
            until = f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
            raise InvalidValue(
                f"{party}'s certificate cannot be used",
                expected="one that is good now",
                received=f"{standing} ({until})",
                action=f"ask {party} for a new card, and check this machine's clock",
            )
        if card.receipt_key is None and not operator:
            raise InvalidValue(
                f"{file} holds no receipt key",
                expected="a certificate and a public key",
                received="a certificate alone",
                action="ask for the card that comity init wrote; an operator's is taken with --operator",
            )
        return certificate

    def _standing(self, certificate: x509.Certificate) -> Standing:
        now = datetime.datetime.now(datetime.UTC)
        if fingerprint(certificate) in self._policy.revoked:
            return "revoked"
        if certificate.not_valid_after_utc < now:
            return "expired"
        return "not valid yet" if certificate.not_valid_before_utc > now else "good"

    @staticmethod
    def _is_new(taken: Path, card: Card, *, replace: bool) -> bool:
        """Whether there is another card, or none, where one is to go."""
        if not taken.exists():
            return True
        try:
            known = read_card(taken)
        except InvalidValue:
            known = None
        if known == card:
            return False
        if not replace:
            raise InvalidValue(
                f"another card of {taken.stem} is here",
                expected=f"the same card as {taken}",
                received="another",
                action="ask the party whether it changed its key, and take the new card with --replace",
            )
        return True

    @staticmethod
    def _require_own_subject(taken: Path, certificate: x509.Certificate) -> None:
        """Checks that no other card here has the same subject: TLS finds certificates by it, and may find the wrong one."""
        for file in sorted(taken.parent.glob(f"*{SUFFIX}")) if taken.parent.is_dir() else ():
            if file == taken:
                continue
            try:
                others = read_card(file).certificates
            except (InvalidValue, MissingFile):
                continue
            if any(each.subject == certificate.subject and each != certificate for each in others):
                raise InvalidValue(
                    f"{file.stem}'s certificate has the same subject",
                    expected="a subject of its own",
                    received=certificate.subject.rfc4514_string(),
                    action="ask the party for a certificate whose common name is its own",
                )

    def _with_address(self, party: str, address: str, *, operator: bool) -> bytes:
        """The configuration with a peer's address in it, and all else as it was."""
        split_address(address)
        if operator or not self._config.is_file():
            action = "leave out --address"
            raise InvalidValue(
                "only a node's peers have addresses", expected="no --address", received=address, action=action
            )
        document: Any = tomlkit.parse(self._config.read_text(encoding="utf-8"))
        document.setdefault("peers", tomlkit.table(is_super_table=True)).setdefault(party, {})["address"] = address
        text: str = tomlkit.dumps(document)
        if tomllib.loads(text).get("peers", {}).get(party, {}).get("address") != address:
            raise InvalidValue(
                f"{self._config} cannot be edited",
                expected="tables of peers",
                received="something else",
                action=f"write [peers.{party}] into it by hand",
            )
        return text.encode()


def _require_named(party: str, certificate: x509.Certificate, file: Path) -> None:
    """Checks that a certificate on a card is the party's."""
    named = named_party(certificate)
    if named != party:
        raise InvalidValue(
            f"{file} is another party's card",
            expected=f"a certificate of {party}",
            received=f"one of {named}" if named is not None else "one that names no party",
            action="check the name; it is the certificate's subject alternative name",
        )


def _path(values: dict[str, Any], table: str, key: str, default: str) -> str:
    section = values.get(table)
    path = section.get(key, default) if isinstance(section, dict) else default
    return path if isinstance(path, str) else default


def _write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, with the rights that it had."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    if path.exists():
        shutil.copymode(path, part)
    part.replace(path)
