"""The first files of a node: they can be used as they are, say everything that can be set, and replace nothing."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel
from teacher_votes.settings import Settings

from comity.contract import IDENTIFIER
from comity.data import DataConfig, load_data
from comity.errors import InvalidValue, MissingFile, UsageError
from comity.node.config import NodeConfig, load_config
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.node.setup.data_section import data_section
from comity.node.setup.init import NodeChoices, make_node, make_operator
from comity.session.policy import Policy
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from comity.transport.cards import fingerprint, named_party, read_card
from learner_node.config import LearnerConfig
from provider_node.config import ProviderConfig

PROVIDER = NodeChoices("provider", "hospital", "127.0.0.2:5500", "npz:scans.npz", {}, ("clinic", "bank"))
LEARNER = NodeChoices("learner", "clinic", peers={"hospital": "hospital.example.org:5500", "b.ank": "[::1]:1"})


def test_a_provider_can_be_started_with_what_was_made(tmp_path: Path) -> None:
    made = make_node(tmp_path / "a" / "node", PROVIDER)
    folder = tmp_path / "a" / "node"
    config = load_config(ProviderConfig, folder / "node.toml")
    assert (config.party, config.listen, config.data.source) == ("hospital", "127.0.0.2:5500", "npz:scans.npz")
    assert config.policy.parties == ("clinic", "bank")
    assert config.identity.trust == folder / "trust"
    assert list((folder / "trust").iterdir()) == []
    config.identity.server_credentials()
    assert all(path.exists() for path in made.files)
    assert made.script is None


def test_a_learner_can_be_started_and_has_a_session_to_run(tmp_path: Path) -> None:
    made = make_node(tmp_path, LEARNER)
    config = load_config(LearnerConfig, tmp_path / "node.toml")
    assert config.listen == ""
    assert {name: peer.address for name, peer in config.peers.items()} == LEARNER.peers
    assert config.policy.parties == ()
    assert made.script == tmp_path / "session.toml"
    script = parse_script(made.script.read_text())
    script.require_no_parties()
    assert script.session.acceptors == ("hospital",)


def test_a_learner_without_a_peer_is_told_of_it_when_it_starts(tmp_path: Path) -> None:
    assert make_node(tmp_path, NodeChoices("learner", "clinic")).script is None
    with pytest.raises(InvalidValue, match="peers is missing"):
        load_config(LearnerConfig, tmp_path / "node.toml")


def test_a_server_has_a_session_to_open(tmp_path: Path) -> None:
    made = make_node(tmp_path, NodeChoices("server", "coop", "127.0.0.1:0"))
    assert made.script is not None
    assert not made.asks
    script = parse_script(made.script.read_text())
    local = LocalParty("coop", load_config(NodeConfig, tmp_path / "node.toml"), GivenSecrets(b"s"), MemoryStore())
    contract, definition = draft_contract(script, local, "s-1")
    assert (definition.center, contract.acceptors, contract.terms.participants) == ("server", ("coop",), 5)


def test_kinds_that_nobody_lets_out_by_default_are_there_to_be_listed(tmp_path: Path) -> None:
    make_node(tmp_path, NodeChoices("analyst", "clinic", peers={"registry": "127.0.0.1:1"}))
    path = tmp_path / "node.toml"
    assert load_config(NodeConfig, path).policy.egress == Policy().egress
    line = '# egress = ["contract", "count"]\n'
    assert line in path.read_text()
    path.write_text(path.read_text().replace(line, line.removeprefix("# ")))
    assert load_config(NodeConfig, path).policy.egress == ("contract", "count")
    make_node(tmp_path / "other", LEARNER)
    assert (tmp_path / "other" / "node.toml").read_text().count("# egress = ") == 1


def test_a_provider_listens_unless_told_where(tmp_path: Path) -> None:
    make_node(tmp_path, NodeChoices("provider", "hospital"))
    assert load_config(ProviderConfig, tmp_path / "node.toml").listen == "0.0.0.0:5500"


def test_the_card_is_of_the_keys_that_the_node_will_use(tmp_path: Path) -> None:
    made = make_node(tmp_path, PROVIDER)
    config = load_config(ProviderConfig, tmp_path / "node.toml")
    card = read_card(made.card)
    (certificate,) = card.certificates
    assert named_party(certificate) == "hospital"
    assert fingerprint(certificate) == made.fingerprint
    local = LocalParty("hospital", config, config.secrets(config.state_dir), MemoryStore())
    assert card.receipt_key == made.receipt_key == local.signer.public_key
    key = load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key.public_key().public_bytes(*spki) == certificate.public_key().public_bytes(*spki)


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    make_node(tmp_path, PROVIDER)
    for name in ("key.pem", "state", "state/secret", "node.toml"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0, name
    assert b"PRIVATE" not in (tmp_path / "hospital.pem").read_bytes()


def test_an_operator_gets_a_key_and_a_certificate(tmp_path: Path) -> None:
    made = make_operator(tmp_path, "alice")
    assert {path.name for path in tmp_path.iterdir()} == {"key.pem", "alice.pem", "trust"}
    assert read_card(made.card).receipt_key is None
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(InvalidValue, match="there already"):
        make_operator(tmp_path, "alice")


@pytest.mark.parametrize("there", ["node.toml", "key.pem", "hospital.pem"])
def test_nothing_is_ever_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(InvalidValue, match=rf"{there} is there already"):
        make_node(tmp_path, PROVIDER)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"


def test_what_else_is_in_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "secret").write_bytes(b"s" * 32)
    (tmp_path / "scans").mkdir()
    made = make_node(tmp_path, PROVIDER)
    assert (tmp_path / "state" / "secret").read_bytes() == b"s" * 32
    assert made.receipt_key is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"role": "provder"}, "no such role.*provider or server or .*operator"),
        ({"party": ""}, "not a party's name"),
        ({"party": "../etc"}, "not a party's name"),
        ({"party": "key"}, "would take the place of key.pem"),
        ({"party": "a\nb"}, "not a party's name"),
        ({"party": "hospital\n"}, "not a party's name"),
        ({"party": "x" * 65}, "not a party's name"),
        ({"allow": ("clinic", "b ank")}, "not a party's name"),
        ({"listen": "nowhere"}, "not an address"),
        ({"listen": "0.0.0.0:99999"}, "not an address"),
        ({"peers": {"bank": "bank"}}, "not an address"),
        ({"peers": {"hospital": "here:1"}}, "cannot ask itself"),
        ({"role": "learner"}, "a learner does not listen"),
        ({"data": ""}, "no data"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    values = {name: getattr(PROVIDER, name) for name in NodeChoices.__slots__} | changes
    with pytest.raises(InvalidValue, match=words) as caught:
        make_node(tmp_path / "node", NodeChoices(**values))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "node").exists()


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingFile, match="is no folder"):
        make_node(tmp_path / "file", PROVIDER)
    with pytest.raises(UsageError, match="cannot be used"):
        make_node(tmp_path / "file" / "below", PROVIDER)
    with pytest.raises(UsageError, match="cannot be used"):
        make_operator(tmp_path / "file" / "below", "alice")


COMMENTED = re.compile(r"^# (?=(?:[a-z_]+ = |\[))", re.MULTILINE)


def test_the_template_names_every_setting_with_its_default(tmp_path: Path) -> None:
    make_node(tmp_path, NodeChoices("teacher", "hospital"))
    text = (tmp_path / "node.toml").read_text()
    # The kinds of a package stand beside those that leave anyway.
    kinds = '# egress = ["contract", "vote", "score"]\n'
    assert text.count(kinds) == 1
    text = text.replace(kinds, "")
    shown = tomllib.loads(COMMENTED.sub("", text))
    # Of data, those that the source takes.
    known = _known(NodeConfig)
    assert _settings(shown) | {"data": None} == known | {"data": None}
    every: set[str] = set()
    for source in ("digits", f"csv:{_table(tmp_path)}", f"imagefolder:{tmp_path}", "npz:x.npz", "text:x"):
        lines = COMMENTED.sub("", data_section(source, tmp_path))
        section = tomllib.loads(f"[data]\n{lines}")["data"]
        assert section.keys() <= known["data"]
        every |= section.keys()
    assert every == known["data"]
    assert set(shown["protocols"]["teacher-votes"]) == set(Settings.model_fields)
    # Where there is a default, it is the one that is shown.
    del shown["secret"]
    shown["data"] = {"source": shown["data"]["source"]}
    for name in ("max_state_bytes", "max_memory_bytes", "max_epsilon", "max_wait_s", "max_duration_s"):
        shown["policy"][name] = None
    shown["training"] |= {"micro_batch": None, "weighting": None}
    shown["protocols"]["teacher-votes"] = {}
    del shown["models"], shown["weights"]
    shown["peers"] = {}
    (tmp_path / "all.toml").write_text(tomlkit.dumps(_without_none(shown)))
    assert load_config(NodeConfig, tmp_path / "all.toml") == load_config(NodeConfig, tmp_path / "node.toml")


def test_every_setting_is_explained(tmp_path: Path) -> None:
    for number, choices in enumerate((PROVIDER, LEARNER)):
        folder = tmp_path / str(number)
        for path in make_node(folder, choices).files:
            if path.suffix == ".toml" and path.name == "node.toml":
                lines = path.read_text().splitlines()
                for before, line in itertools.pairwise(lines):
                    if re.match(r"(?:# )?[a-z_]+ = ", line):
                        assert re.match(r"# [A-Za-z]", before), f"{line!r} follows {before!r}"
                        assert not COMMENTED.match(before)


def _table(folder: Path) -> Path:
    path = folder / "rows.csv"
    path.write_text("age,sex,ill\n50,f,yes\n60,m,no\n55,f,no\n52,m,yes\n")
    return path


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    nested = {"tls", "data", "policy", "privacy", "retry", "control", "peers", "protocols"}
    return {key: set(value) if key in nested - {"peers", "protocols"} else None for key, value in values.items()}


def _known(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    tables = {"tls": "TlsConfig", "data": "DataConfig", "policy": "Policy", "retry": "RetryPolicy"}
    tables |= {"control": "ControlConfig", "privacy": "PrivacySettings"}
    return {
        key: set(schema["$defs"][tables[key]]["properties"]) if key in tables else None for key in schema["properties"]
    }


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }


@given(
    party=st.from_regex(IDENTIFIER, fullmatch=True).filter(lambda name: "\n" not in name),
    peer=st.from_regex(IDENTIFIER, fullmatch=True).filter(lambda name: "\n" not in name),
    data=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_whatever_the_names_the_files_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, party: str, peer: str, data: str
) -> None:
    assume(party not in {peer, "key"})
    folder = tmp_path_factory.mktemp("node")
    make_node(folder, NodeChoices("learner", party, data=data, peers={peer: "h:1"}, allow=(peer,)))
    config = load_config(LearnerConfig, folder / "node.toml")
    assert (config.party, config.data.source, list(config.peers)) == (party, data, [peer])
    assert x509.load_pem_x509_certificates((folder / f"{party}.pem").read_bytes())


@pytest.mark.parametrize(
    ("told", "targets", "kind"),
    [
        (["1.5", "2", "3", "4"], 1, "numbers"),
        (["1", "2", "3", "4"], 1, "numbers"),
        (["1", "2", "1", "1.0"], 1, None),
        (["ill", "well", "ill", "well"], 1, None),
        (["1 0", "0 0", "0 1", "1 1"], 2, "labels"),
        (["yes no", "YES no", "no yes", "true no"], 2, "labels"),
        (["1.5 0", "2 1", "1 1", "3 0"], 2, "numbers"),
    ],
)
def test_what_targets_hold_is_written_down(tmp_path: Path, told: list[str], targets: int, kind: str | None) -> None:
    names = ["one", "two"][:targets]
    lines = [",".join(["age", *names]), *(",".join([str(at), *each.split()]) for at, each in enumerate(told))]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    choices = NodeChoices("learner", "clinic", data=f"csv:{tmp_path / 'rows.csv'}", targets=names)
    make_node(tmp_path / "node", choices)
    table = tomllib.loads((tmp_path / "node" / "node.toml").read_text())["data"]["table"]
    assert (table.get("kind"), table["target"]) == (kind, names if targets > 1 else "one")
    splits = load_config(NodeConfig, tmp_path / "node" / "node.toml").data
    assert isinstance(splits, DataConfig)
    assert len(load_data(splits).train) == 4


def test_several_targets_of_words_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("age,one,two\n1,a,b\n2,b,a\n")
    choices = NodeChoices("learner", "clinic", data=f"csv:{tmp_path / 'rows.csv'}", targets=["one", "two"])
    with pytest.raises(InvalidValue, match="several targets are numbers, or labels: .*received 'a'"):
        make_node(tmp_path / "node", choices)
