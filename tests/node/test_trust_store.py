"""Taking other parties' cards: what is taken is checked first, and the configuration keeps its comments."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from comity.errors import InvalidValue, MissingFile, UnknownKey, UsageError
from comity.ledger.receipts import Signer
from comity.node.config import load_config
from comity.node.setup.init import NodeChoices, make_node, make_operator
from comity.node.setup.trust_store import CardImport, TrustStore
from comity.transport import certificates
from comity.transport.cards import Card, fingerprint, read_card, spelled
from comity.transport.certificates import Authority, self_signed
from learner_node.config import LearnerConfig

NODE = NodeChoices("learner", "clinic", peers={"hospital": "old.example.org:1"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A learner's node."""
    make_node(tmp_path / "clinic", NODE)
    return tmp_path / "clinic"


@pytest.fixture
def card(tmp_path: Path) -> Callable[..., Path]:
    """A card as it comes by mail, of whom a test says."""

    def make(party: str = "hospital", *, file: str | None = None, receipt_key: bool = True) -> Path:
        certificate, _ = self_signed(party)
        key = Signer.from_seed(party.encode().ljust(32), party).public_key if receipt_key else None
        path = tmp_path / (file or f"{party}.pem")
        path.write_bytes(Card((certificate,), key).to_pem())
        return path

    return make


def test_a_card_is_taken_as_it_is(folder: Path, card: Callable[..., Path]) -> None:
    file = card()
    taken, new = TrustStore(folder).add(CardImport("hospital", file))
    assert new
    assert taken.file == folder / "trust" / "hospital.pem"
    assert read_card(taken.file) == read_card(file)
    assert [(each.party, each.standing, each.operator) for each in TrustStore(folder).all()] == [
        ("hospital", "good", False)
    ]
    assert load_config(LearnerConfig, folder / "node.toml").receipt_key_of("hospital") == read_card(file).receipt_key


def test_the_same_card_again_changes_nothing(folder: Path, card: Callable[..., Path]) -> None:
    file = card()
    TrustStore(folder).add(CardImport("hospital", file))
    written = (folder / "trust" / "hospital.pem").stat().st_mtime_ns
    assert not TrustStore(folder).add(CardImport("hospital", file))[1]
    assert (folder / "trust" / "hospital.pem").stat().st_mtime_ns == written


def test_another_card_of_a_party_needs_a_word(folder: Path, card: Callable[..., Path]) -> None:
    TrustStore(folder).add(CardImport("hospital", card()))
    other = card(file="other.pem")
    with pytest.raises(InvalidValue, match="another card of hospital is here.*--replace"):
        TrustStore(folder).add(CardImport("hospital", other))
    assert TrustStore(folder).add(CardImport("hospital", other, replace=True))[1]
    assert read_card(folder / "trust" / "hospital.pem") == read_card(other)


def test_an_operators_certificate_goes_elsewhere(folder: Path, tmp_path: Path) -> None:
    made = make_operator(tmp_path / "alice", "alice")
    taken, _ = TrustStore(folder).add(CardImport("alice", made.card, operator=True))
    assert taken.file == folder / "operators" / "alice.pem"
    config = load_config(LearnerConfig, folder / "node.toml")
    assert config.operator_identity.trusted().roots() == read_card(made.card).roots
    assert config.identity.trusted().roots() == b""
    # An operator may have its node's name.
    make_operator(tmp_path / "self", "clinic")
    TrustStore(folder).add(CardImport("clinic", tmp_path / "self" / "clinic.pem", operator=True))


def test_an_operators_machine_takes_the_cards_of_nodes(folder: Path, tmp_path: Path) -> None:
    make_operator(tmp_path / "alice", "alice")
    TrustStore(tmp_path / "alice").add(CardImport("clinic", folder / "clinic.pem"))
    assert (tmp_path / "alice" / "trust" / "clinic.pem").is_file()
    with pytest.raises(InvalidValue, match="only a node's peers have addresses"):
        TrustStore(tmp_path / "alice").add(CardImport("clinic", folder / "clinic.pem", address="h:1"))


def test_an_address_is_written_and_all_else_stays(folder: Path, card: Callable[..., Path]) -> None:
    path = folder / "node.toml"
    before = path.read_text()
    TrustStore(folder).add(CardImport("hospital", card(), address="new.example.org:2"))
    assert path.read_text() == before.replace("old.example.org:1", "new.example.org:2")
    assert path.stat().st_mode & 0o077 == 0
    TrustStore(folder).add(CardImport("b.ank", card("b.ank"), address="[::1]:5500"))
    text = path.read_text()
    assert text.startswith(before.replace("old.example.org:1", "new.example.org:2").rstrip())
    peers = load_config(LearnerConfig, path).peers
    assert {name: peer.address for name, peer in peers.items()} == {
        "hospital": "new.example.org:2",
        "b.ank": "[::1]:5500",
    }


@pytest.mark.parametrize(
    "peers",
    ["", "[peers]\n", "peers = {}\n", 'peers = { bank = { address = "b:1" } }\n', 'peers.bank.address = "b:1"\n'],
)
def test_an_address_is_written_however_the_peers_are(folder: Path, card: Callable[..., Path], peers: str) -> None:
    path = folder / "node.toml"
    tail = '[data]\nsource = "digits" # ours\n[tls]\ncertificate = "clinic.pem"\nkey = "key.pem"\ntrust = "trust"\n'
    path.write_text(f'party = "clinic"\nstate_dir = "state"\n{peers}{tail}')
    TrustStore(folder).add(CardImport("hospital", card(), address="h:2"))
    config = load_config(LearnerConfig, path)
    assert config.peers["hospital"].address == "h:2"
    assert ("bank" in config.peers) == ("bank" in peers)
    assert config.data.source == "digits"
    assert "# ours" in path.read_text()


def private_key(tmp_path: Path, card: Callable[..., Path]) -> Path:
    path = card()
    path.write_bytes(path.read_bytes() + self_signed("hospital")[1])
    return path


def expired(tmp_path: Path, card: Callable[..., Path]) -> Path:
    return _lasting(card, datetime.timedelta(minutes=-1))


def _lasting(card: Callable[..., Path], lifetime: datetime.timedelta) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "_OWN_LIFETIME", lifetime)
        return card()


def not_yet(tmp_path: Path, card: Callable[..., Path]) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "_CLOCK_SKEW", datetime.timedelta(hours=-2))
        return card()


def two(tmp_path: Path, card: Callable[..., Path]) -> Path:
    path = card()
    path.write_bytes(read_card(card(file="again.pem")).roots + path.read_bytes())
    return path


def other_party(tmp_path: Path, card: Callable[..., Path]) -> Path:
    return card("bank", file="hospital.pem")


def nameless(tmp_path: Path, card: Callable[..., Path]) -> Path:
    path = tmp_path / "authority.pem"
    path.write_bytes(Card((Authority.create().certificate,), "0" * 64).to_pem())
    return path


def without_receipt_key(tmp_path: Path, card: Callable[..., Path]) -> Path:
    return card(receipt_key=False)


def a_folder(tmp_path: Path, card: Callable[..., Path]) -> Path:
    return tmp_path


def nothing(tmp_path: Path, card: Callable[..., Path]) -> Path:
    return tmp_path / "none.pem"


def empty(tmp_path: Path, card: Callable[..., Path]) -> Path:
    path = tmp_path / "empty.pem"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (private_key, "holds a PRIVATE KEY.*must make a new key"),
        (expired, "expired"),
        (not_yet, "not valid yet.*clock"),
        (two, "expected one certificate, or an old and a new one with another subject, received 2"),
        (other_party, "another party's card.*received one of bank"),
        (nameless, "names no party"),
        (without_receipt_key, "holds no receipt key.*--operator"),
        (a_folder, "received a folder"),
        (nothing, "received nothing"),
        (empty, "an empty file"),
    ],
)
def test_a_card_that_is_not_to_be_taken(
    folder: Path, tmp_path: Path, card: Callable[..., Path], make: Callable[..., Path], words: str
) -> None:
    before = (folder / "node.toml").read_text()
    with pytest.raises(UsageError, match=words) as caught:
        TrustStore(folder).add(CardImport("hospital", make(tmp_path, card), address="h:2"))
    assert "\n" not in str(caught.value)
    assert list((folder / "trust").iterdir()) == []
    assert (folder / "node.toml").read_text() == before


@pytest.mark.parametrize(
    ("introduction", "words"),
    [
        (CardImport("clinic", Path("clinic.pem")), "own party"),
        (CardImport("hospital", Path("hospital.pem"), address="nowhere"), "not an address"),
        (CardImport("hospital", Path("hospital.pem"), operator=True, address="h:1"), "only a node's peers"),
    ],
)
def test_what_makes_no_sense_is_refused(
    folder: Path, tmp_path: Path, card: Callable[..., Path], introduction: CardImport, words: str
) -> None:
    file = card(introduction.party)
    with pytest.raises(InvalidValue, match=words):
        TrustStore(folder).add(CardImport(introduction.party, file, introduction.operator, introduction.address))
    assert list((folder / "trust").iterdir()) == []


def test_a_revoked_certificate_is_not_taken_and_shows(folder: Path, card: Callable[..., Path]) -> None:
    file = card()
    TrustStore(folder).add(CardImport("hospital", file))
    path = folder / "node.toml"
    shown = spelled(fingerprint(read_card(file).certificates[0]))
    path.write_text(path.read_text().replace("# revoked = []", f'revoked = ["{shown}"]'))
    assert [each.standing for each in TrustStore(folder).all()] == ["revoked"]
    with pytest.raises(InvalidValue, match="revoked"):
        TrustStore(folder).add(CardImport("hospital", file))


def test_a_subject_that_another_card_has_is_refused(folder: Path, card: Callable[..., Path], tmp_path: Path) -> None:
    TrustStore(folder).add(CardImport("hospital", card()))
    # Named mallory, but with the hospital's subject: by it TLS would look for the hospital's certificate.
    with pytest.MonkeyPatch.context() as patch:
        before = certificates._name
        patch.setattr(certificates, "_name", lambda common: before("hospital"))
        file = card("mallory")
    with pytest.raises(InvalidValue, match="the same subject"):
        TrustStore(folder).add(CardImport("mallory", file))


def test_one_authority_for_all_is_listed_and_takes_no_cards(folder: Path, card: Callable[..., Path]) -> None:
    authority = Card((Authority.create().certificate,))
    (folder / "trust").rmdir()
    (folder / "trust").write_bytes(authority.to_pem())
    assert [(each.party, each.standing) for each in TrustStore(folder).all()] == [("*", "good")]
    with pytest.raises(InvalidValue, match="one authority for all"):
        TrustStore(folder).add(CardImport("hospital", card()))


def test_what_is_no_card_is_listed_as_such(folder: Path) -> None:
    (folder / "trust" / "hospital.pem").write_text("?")
    assert [(each.party, each.standing) for each in TrustStore(folder).all()] == [("hospital", "no card")]


def test_the_folders_are_those_of_the_configuration(folder: Path, card: Callable[..., Path]) -> None:
    path = folder / "node.toml"
    path.write_text(path.read_text().replace('trust = "trust"', 'trust = "../friends"'))
    taken, _ = TrustStore(folder).add(CardImport("hospital", card()))
    assert taken.file == folder / ".." / "friends" / "hospital.pem"


def test_a_folder_without_a_node(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no node is configured here.*comity init"):
        TrustStore(tmp_path)
    (folder / "node.toml").write_text("party = ")
    with pytest.raises(InvalidValue, match="no TOML"):
        TrustStore(folder)
    (folder / "node.toml").write_text("[policy]\nmax_round = 1")
    with pytest.raises(UnknownKey, match="max_rounds"):
        TrustStore(folder)


@pytest.mark.parametrize("name", ["../hospital", "*", "", "/etc/hospital", "hos\x1b[2Jpital", "h" * 65, "a b"])
def test_what_is_no_name_of_a_party_is_no_file_either(folder: Path, card: Callable[..., Path], name: str) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(InvalidValue, match="no party's name") as caught:
        TrustStore(folder).add(CardImport(name, card(file="card.pem")))
    assert "\x1b" not in str(caught.value)
    assert sorted(folder.rglob("*")) == before
