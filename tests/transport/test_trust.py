"""Trust by card, over real TLS: a certificate vouches for the party whose card it is on, and for no other."""

from __future__ import annotations

import base64
import datetime
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from comity.errors import CertificateRejected, ComityError, MissingFile, PolicyRefusal, UnknownParty
from comity.ledger.receipts import Signer
from comity.transport.cards import Card, fingerprint
from comity.transport.certificates import Authority, self_signed
from comity.transport.diagnosis import diagnose
from comity.transport.identity import Identity, caller
from comity.transport.peer_connection import PeerConnection
from comity.transport.server import NodeServer
from comity.transport.trust import Trust
from tests.transport.conftest import METHOD

ELSEWHERE = "127.0.0.2:0"
"""An address of this machine that stands in no certificate."""


def name_the_caller(request: bytes, context: grpc.ServicerContext) -> bytes:
    return caller(context).encode()


class Party:
    """A party with a self-signed certificate and a folder of cards."""

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.name = name
        self.certificate, self.private = self_signed(name)
        self.card = Card((self.certificate,), Signer.from_seed(name.encode().ljust(32), name).public_key)
        # As comity init has it: the node's certificate file is the card.
        (folder / "own.pem").write_bytes(self.card.to_pem())
        (folder / "key.pem").write_bytes(self.private)
        (folder / "trust").mkdir()
        self.identity = Identity(name, folder / "own.pem", folder / "key.pem", folder / "trust")
        self.folder = folder

    def trusts(self, other: Party, *, as_: str | None = None) -> None:
        (self.folder / "trust" / f"{as_ or other.name}.pem").write_bytes(other.card.to_pem())

    def issues(self, name: str, folder: Path) -> Identity:
        """Signs a certificate in a name of its choosing, as nobody can keep it from doing."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        own = serialization.load_pem_private_key(self.private, None)
        certificate = (
            x509.CertificateBuilder()
            # With the issuer's own subject, TLS would take it for a self-signed one.
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name}, renewed")]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(own, hashes.SHA256())  # type: ignore[arg-type]
        )
        folder.mkdir()
        (folder / "own.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "key.pem").write_bytes(pem)
        return replace(self.identity, party=name, certificate=folder / "own.pem", key=folder / "key.pem")


def authority_of(party: Party, name: str) -> None:
    """Gives a party a certificate that may issue others, as `openssl req -x509` makes them."""
    authority = Authority.create()
    key = authority.key
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    party.certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    party.private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    party.card = replace(party.card, certificates=(party.certificate,))
    (party.folder / "own.pem").write_bytes(party.card.to_pem())
    (party.folder / "key.pem").write_bytes(party.private)


@pytest.fixture
def hospital(tmp_path: Path) -> Party:
    return Party("hospital", tmp_path / "hospital")


@pytest.fixture
def clinic(tmp_path: Path) -> Party:
    return Party("clinic", tmp_path / "clinic")


@pytest.fixture
def mallory(tmp_path: Path) -> Party:
    return Party("mallory", tmp_path / "mallory")


@pytest.fixture
def asked(
    echo: Callable[..., Any], connect: Callable[..., PeerConnection], method: Callable[[grpc.Channel], Any]
) -> Callable[..., bytes]:
    """Calls a server of hospital's, once; what it took the caller for."""

    def ask(server: Identity | str, identity: Identity) -> bytes:
        address = serve(server) if isinstance(server, Identity) else server
        connection = connect(address, identity=identity)
        answer: bytes = connection.call(method(connection.channel), b"")
        return answer

    def serve(identity: Identity) -> str:
        address: str = echo(name_the_caller, identity=identity, address=ELSEWHERE).address
        return address

    ask.serve = serve  # type: ignore[attr-defined]
    return ask


def test_two_parties_that_share_nothing_but_cards(hospital: Party, clinic: Party, asked: Any) -> None:
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    assert asked(hospital.identity, clinic.identity) == b"clinic"


@pytest.mark.parametrize("is_authority", [True, False])
def test_a_trusted_party_cannot_call_in_anothers_name(
    hospital: Party, clinic: Party, mallory: Party, asked: Any, tmp_path: Path, is_authority: bool
) -> None:
    if is_authority:
        authority_of(mallory, "mallory")
    for each in (clinic, mallory):
        hospital.trusts(each)
    mallory.trusts(hospital)
    address = asked.serve(hospital.identity)
    with pytest.raises(CertificateRejected, match="the certificate is not clinic's"):
        asked(address, mallory.issues("clinic", tmp_path / "forged"))
    with pytest.raises(UnknownParty, match="received bank"):
        asked(address, mallory.issues("bank", tmp_path / "invented"))
    # It is still good as itself, and so is the clinic.
    assert asked(address, mallory.identity) == b"mallory"
    clinic.trusts(hospital)
    assert asked(address, clinic.identity) == b"clinic"


def test_a_trusted_party_cannot_answer_in_anothers_name(
    hospital: Party, clinic: Party, mallory: Party, asked: Any, tmp_path: Path
) -> None:
    authority_of(mallory, "mallory")
    for each in (hospital, mallory):
        clinic.trusts(each)
    mallory.trusts(clinic)
    with pytest.raises(CertificateRejected, match="expected a certificate of hospital"):
        asked(mallory.issues("hospital", tmp_path / "forged"), clinic.identity)


def test_a_card_of_an_authority_vouches_for_its_own_party(
    hospital: Party, clinic: Party, asked: Any, tmp_path: Path
) -> None:
    authority_of(clinic, "clinic")
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    assert asked(hospital.identity, clinic.issues("clinic", tmp_path / "renewed")) == b"clinic"


def test_only_an_authority_may_renew_by_itself(hospital: Party, clinic: Party, asked: Any, tmp_path: Path) -> None:
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    with pytest.raises(CertificateRejected):
        asked(hospital.identity, clinic.issues("clinic", tmp_path / "renewed"))


def test_a_card_under_another_name_vouches_for_nobody(hospital: Party, clinic: Party, asked: Any) -> None:
    hospital.trusts(clinic, as_="bank")
    clinic.trusts(hospital)
    with pytest.raises(UnknownParty):
        asked(hospital.identity, clinic.identity)


def test_who_is_trusted_changes_while_the_node_runs(hospital: Party, clinic: Party, asked: Any) -> None:
    clinic.trusts(hospital)
    with capture_logs() as logs:
        address = asked.serve(hospital.identity)
    assert [each["event"] for each in logs] == ["no-party-is-trusted"]
    assert "comity trust add" in logs[0]["action"]
    with pytest.raises(CertificateRejected, match="hospital does not accept our certificate"):
        asked(address, clinic.identity)
    hospital.trusts(clinic)
    assert asked(address, clinic.identity) == b"clinic"


def test_who_is_no_longer_trusted_is_refused_on_an_open_connection(
    hospital: Party, clinic: Party, asked: Any, connect: Callable[..., PeerConnection], method: Callable[..., Any]
) -> None:
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    connection = connect(asked.serve(hospital.identity), identity=clinic.identity)
    assert connection.call(method(connection.channel), b"") == b"clinic"
    (hospital.folder / "trust" / "clinic.pem").unlink()
    with pytest.raises(UnknownParty):
        connection.call(method(connection.channel), b"")
    (hospital.folder / "trust").rmdir()
    with pytest.raises(UnknownParty, match="cannot tell") as caught:
        connection.call(method(connection.channel), b"")
    assert str(hospital.folder) not in str(caught.value)


def test_a_renewed_certificate_is_served_without_a_restart(hospital: Party, clinic: Party, asked: Any) -> None:
    hospital.trusts(clinic)
    address = asked.serve(hospital.identity)
    authority_of(hospital, "hospital")
    clinic.trusts(hospital)
    assert asked(address, clinic.identity) == b"clinic"


def test_a_card_that_is_written_over_in_place_counts_at_the_next_call(
    hospital: Party,
    clinic: Party,
    asked: Any,
    connect: Callable[..., PeerConnection],
    method: Callable[..., Any],
    tmp_path: Path,
) -> None:
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    connection = connect(asked.serve(hospital.identity), identity=clinic.identity)
    assert connection.call(method(connection.channel), b"") == b"clinic"
    folder = (hospital.folder / "trust").stat().st_mtime_ns
    hospital.trusts(Party("clinic", tmp_path / "other"))
    assert (hospital.folder / "trust").stat().st_mtime_ns == folder
    with pytest.raises(CertificateRejected):
        connection.call(method(connection.channel), b"")


def test_files_that_are_no_cards_are_passed_over(hospital: Party, clinic: Party, asked: Any) -> None:
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    trust = hospital.folder / "trust"
    (trust / "README.txt").write_text("who is who")
    (trust / "note.pem").write_text("not yet here")
    (trust / "folder.pem").mkdir()
    with capture_logs() as logs:
        assert asked(hospital.identity, clinic.identity) == b"clinic"
    ignored = {os.path.basename(each["file"]) for each in logs if each["event"] == "card-ignored"}  # noqa: PTH119
    assert ignored == {"note.pem", "folder.pem"}


def test_a_caller_that_is_revoked_is_told(hospital: Party, clinic: Party, asked: Any) -> None:
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    revoking = replace(hospital.identity, revoked=frozenset({fingerprint(clinic.certificate)}))
    with pytest.raises(PolicyRefusal, match=r"policy\.revoked refuses clinic's certificate"):
        asked(revoking, clinic.identity)


def test_a_peer_that_is_revoked_is_not_called(hospital: Party, clinic: Party, asked: Any) -> None:
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    revoking = replace(clinic.identity, revoked=frozenset({fingerprint(hospital.certificate)}))
    with pytest.raises(PolicyRefusal, match=r"policy\.revoked refuses hospital's certificate"):
        asked(hospital.identity, revoking)


def test_what_a_trusted_authority_issued_can_be_revoked_at_both_ends(
    issue: Callable[..., Identity], asked: Any
) -> None:
    hospital, clinic = issue("hospital"), issue("clinic")

    def revoking(who: Identity, whom: Identity) -> Identity:
        assert whom.certificate is not None
        certificate = x509.load_pem_x509_certificate(whom.certificate.read_bytes())
        return replace(who, revoked=frozenset({fingerprint(certificate)}))

    assert asked(hospital, clinic) == b"clinic"
    # A list with others on it is in nobody's way.
    assert asked(revoking(hospital, hospital), revoking(clinic, clinic)) == b"clinic"
    with pytest.raises(PolicyRefusal, match="refuses clinic's"):
        asked(revoking(hospital, clinic), clinic)
    with pytest.raises(PolicyRefusal, match="refuses hospital's"):
        asked(hospital, revoking(clinic, hospital))


def test_an_open_line_to_a_peer_that_is_revoked_is_refused_whoever_vouches_for_it(
    issue: Callable[..., Identity], echo: Callable[..., Any], connect: Callable[..., PeerConnection], free_address: str
) -> None:
    hospital, clinic = issue("hospital"), issue("clinic")
    assert hospital.certificate is not None
    certificate = x509.load_pem_x509_certificate(hospital.certificate.read_bytes())
    revoking = replace(clinic, revoked=frozenset({fingerprint(certificate)}))
    away = connect(free_address, identity=clinic)
    line = connect(echo(identity=hospital, address=free_address).address, identity=clinic)
    call = line.stub(lambda channel: channel.unary_unary(METHOD))
    assert line.call(call, b"x") == b"x"
    line.require_trusted(clinic)
    assert line.call(call, b"x") == b"x"
    with pytest.raises(PolicyRefusal, match="refuses hospital's"):
        line.require_trusted(revoking)
    with pytest.raises(PolicyRefusal, match="refuses hospital's"):
        line.call(call, b"x")
    away.close()
    away.require_trusted(revoking)


def test_a_peer_that_was_away_when_it_was_revoked_is_refused_when_it_is_back(
    issue: Callable[..., Identity], echo: Callable[..., Any], connect: Callable[..., PeerConnection], free_address: str
) -> None:
    hospital, clinic = issue("hospital"), issue("clinic")
    assert hospital.certificate is not None
    certificate = x509.load_pem_x509_certificate(hospital.certificate.read_bytes())
    line = connect(free_address, identity=clinic)
    line.require_trusted(replace(clinic, revoked=frozenset({fingerprint(certificate)})))
    echo(identity=hospital, address=free_address)
    call = line.stub(lambda channel: channel.unary_unary(METHOD))
    with pytest.raises(PolicyRefusal, match="refuses hospital's"):
        line.call(call, b"x")


def test_an_authority_on_a_card_that_is_revoked_takes_its_certificates_along(
    hospital: Party, clinic: Party, asked: Any, tmp_path: Path
) -> None:
    authority_of(clinic, "clinic")
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    revoking = replace(hospital.identity, revoked=frozenset({fingerprint(clinic.certificate)}))
    with pytest.raises(PolicyRefusal):
        asked(revoking, clinic.issues("clinic", tmp_path / "renewed"))


def test_nobody_is_called_without_a_card(hospital: Party, clinic: Party, asked: Any) -> None:
    with pytest.raises(MissingFile, match=r"no card of hospital is trusted.*comity trust add hospital FILE"):
        asked(hospital.identity, clinic.identity)


def test_a_peer_with_another_certificate_than_on_its_card(
    hospital: Party, clinic: Party, asked: Any, tmp_path: Path
) -> None:
    clinic.trusts(Party("hospital", tmp_path / "before"))
    hospital.trusts(clinic)
    with pytest.raises(CertificateRejected, match="tls.trust holds the card that hospital uses now"):
        asked(hospital.identity, clinic.identity)


def test_two_certificates_on_a_card_are_both_good(hospital: Party, clinic: Party, asked: Any, tmp_path: Path) -> None:
    clinic.trusts(hospital)
    new = Party("clinic", tmp_path / "new")
    new.trusts(hospital)
    both = Card((clinic.certificate, new.certificate), clinic.card.receipt_key)
    (hospital.folder / "trust" / "clinic.pem").write_bytes(both.to_pem())
    address = asked.serve(hospital.identity)
    assert asked(address, clinic.identity) == asked(address, new.identity) == b"clinic"


def test_a_receipt_key_is_known_from_a_card_alone(
    hospital: Party, clinic: Party, issue: Callable[..., Identity]
) -> None:
    hospital.trusts(clinic)
    trust = hospital.identity.trusted()
    assert trust.receipt_key("clinic") == clinic.card.receipt_key
    assert trust.receipt_key("bank") is None
    assert trust.receipt_key("../clinic") is None
    assert issue("hospital").trusted().receipt_key("clinic") is None


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="whom to trust is missing.*nowhere"):
        Trust(tmp_path / "nowhere").roots()


def test_a_party_may_issue_itself_any_number_of_certificates(hospital: Party, clinic: Party, tmp_path: Path) -> None:
    authority_of(clinic, "clinic")
    hospital.trusts(clinic)
    trust = hospital.identity.trusted()
    for number in range(3):
        issued = clinic.issues("clinic", tmp_path / f"{number}").certificate
        assert issued is not None
        trust.require("clinic", issued.read_bytes())
        with pytest.raises(ComityError):
            trust.require("bank", issued.read_bytes())


def test_diagnosis_says_that_a_node_with_a_card_is_there(hospital: Party, clinic: Party, asked: Any) -> None:
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    error = diagnose(asked.serve(hospital.identity), "hospital", clinic.identity, "GOAWAY")
    assert "did not answer the call" in str(error)


def test_damaged_cards_keep_nobody_out(hospital: Party, clinic: Party, mallory: Party, asked: Any) -> None:
    """A byte of a card may be any other: at worst it is passed over, and its neighbours are who they are."""
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    der = mallory.certificate.public_bytes(serialization.Encoding.DER)
    for at in range(len(der)):
        damaged = der[:at] + bytes([der[at] ^ 0x01]) + der[at + 1 :]
        text = base64.encodebytes(damaged).decode()
        card = f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"
        (hospital.folder / "trust" / f"a-{at:03}.pem").write_text(card)
    assert asked(hospital.identity, clinic.identity) == b"clinic"


def test_who_is_no_longer_trusted_follows_nothing_any_more(hospital: Party, clinic: Party) -> None:
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    server = NodeServer(hospital.identity, [])
    address = server.start("127.0.0.1:0")
    options = [("grpc.ssl_target_name_override", "hospital"), ("grpc.default_authority", "hospital")]
    try:
        with grpc.secure_channel(address, clinic.identity.client_credentials("hospital"), options) as channel:
            following = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(following).status == health_pb2.HealthCheckResponse.SERVING
            (hospital.folder / "trust" / "clinic.pem").unlink()
            with pytest.raises(grpc.RpcError) as caught:
                next(following)
            assert caught.value.code() is grpc.StatusCode.CANCELLED  # type: ignore[attr-defined]
    finally:
        server.stop(0)


def test_many_streams_of_one_certificate_are_looked_at_once(
    hospital: Party, clinic: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.trusts(clinic)
    clinic.trusts(hospital)
    looks: list[str] = []
    require = Trust.require

    def counted(trust: Trust, party: str, pem: bytes) -> None:
        looks.append(party)
        require(trust, party, pem)

    server = NodeServer(hospital.identity, [])
    address = server.start("127.0.0.1:0")
    options = [("grpc.ssl_target_name_override", "hospital"), ("grpc.default_authority", "hospital")]
    try:
        with grpc.secure_channel(address, clinic.identity.client_credentials("hospital"), options) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            following = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(20)]
            assert {next(each).status for each in following} == {health_pb2.HealthCheckResponse.SERVING}
            monkeypatch.setattr(Trust, "require", counted)
            server.streams.meanwhile()
            # The server may have looked by itself meanwhile, which it does every second.
            assert 1 <= len(looks) <= 3
            (hospital.folder / "trust" / "clinic.pem").unlink()
            server.streams.meanwhile()
            for each in following:
                with pytest.raises(grpc.RpcError):
                    next(each)
    finally:
        server.stop(0)
