"""The first files of a node: they can be used as they are, say everything that can be set, and replace nothing."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pytest
import tomlkit
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import BaseModel
from teacher_votes.settings import Settings

from comity.contract import IDENTIFIER
from comity.data import DataConfig, Splits, load_data
from comity.data.dates import is_date
from comity.errors import InvalidValue, MissingFile, UsageError
from comity.node.config import NodeConfig, load_config
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.node.setup.data_section import data_section
from comity.node.setup.init import NodeChoices, make_node, make_operator
from comity.node.validation import validated
from comity.protocol.registry import protocol, protocols
from comity.protocol.topology import Topology
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
    assert made.scripts == ()


def test_a_learner_can_be_started_and_has_a_session_to_run(tmp_path: Path) -> None:
    made = make_node(tmp_path, LEARNER)
    config = load_config(LearnerConfig, tmp_path / "node.toml")
    assert config.listen == ""
    assert {name: peer.address for name, peer in config.peers.items()} == LEARNER.peers
    assert config.policy.parties == ()
    assert made.scripts[0] == tmp_path / "session.toml"
    script = parse_script(made.scripts[0].read_text())
    script.require_no_parties()
    assert script.session.acceptors == ("hospital",)


def test_a_learner_without_a_peer_is_told_of_it_when_it_starts(tmp_path: Path) -> None:
    assert make_node(tmp_path, NodeChoices("learner", "clinic")).scripts == ()
    with pytest.raises(InvalidValue, match="peers is missing"):
        load_config(LearnerConfig, tmp_path / "node.toml")


def test_a_server_has_a_session_to_open(tmp_path: Path) -> None:
    made = make_node(tmp_path, NodeChoices("server", "coop", "127.0.0.1:0"))
    assert not made.asks
    script = parse_script(made.scripts[0].read_text())
    local = LocalParty("coop", load_config(NodeConfig, tmp_path / "node.toml"), GivenSecrets(b"s"), MemoryStore())
    contract, definition = draft_contract(script, local, "s-1")
    assert (definition.center, contract.acceptors, contract.terms.participants) == ("server", ("coop",), 5)


@pytest.mark.parametrize("role", sorted({each.center for each in protocols()}))
def test_a_role_has_a_script_for_each_protocol_whose_sessions_it_begins(tmp_path: Path, role: str) -> None:
    made = make_node(tmp_path, NodeChoices(role, "coop", peers={"hospital": "127.0.0.1:1"}))
    begun = [each for each in protocols() if each.center == role and each.extensions.script_template]
    scripts = [parse_script(each.read_text()) for each in made.scripts]
    assert [each.session.protocol for each in scripts] == [each.name for each in begun]
    for each, definition in zip(scripts, begun, strict=True):
        validated(definition.terms, each.session.terms, "session.terms")
        each.require_no_parties()


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
        ({"data": "foo:bar"}, "no such data source.*csv:<file>.*'foo:bar'; comity data lists them"),
        ({"data": "imagefoldr:scans"}, "no such data source.*did you mean 'imagefolder:<dir>'"),
        ({"data": "text"}, "no such data source.*did you mean 'text:<dir>'"),
        ({"data": "digits:here"}, "no such data source.*did you mean 'digits'"),
        ({"data": "gymnasium:"}, "no such data source.*did you mean 'gymnasium:<id>'"),
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
    del shown["secret"], shown["tls"]["passphrase_file"]
    shown["data"] = {"source": shown["data"]["source"]}
    for name in ("max_state_bytes", "max_memory_bytes", "max_epsilon", "max_wait_s", "max_duration_s"):
        shown["policy"][name] = None
    shown["limits"]["connections"] = None
    shown["logs"]["file"] = shown["tracking"]["tensorboard"] = None
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


@pytest.mark.parametrize("name", ["id", "Patient ID", "record-id", "nurse_said"])
def test_a_column_that_tells_rows_apart_is_no_input(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.csv"
    # Words tell rows apart, numbers only where they are called ids.
    words = "said " if name == "nurse_said" else ""
    rows = "".join(f"{words}{each},{each % 7},{each % 3},{'yes' if each % 2 else 'no'}\n" for each in range(40))
    path.write_text(f"{name},age,visits,ill\n{rows}")
    section = tomllib.loads(f"[data]\n{data_section('csv:rows.csv', tmp_path)}")["data"]["table"]
    assert (section["id"], section["columns"]) == (name, ["age", "visits"])
    assert "categories" not in section


def test_numbers_that_are_all_different_are_inputs(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("weight,ill\n" + "".join(f"{60 + each / 7},{each % 2}\n" for each in range(40)))
    section = tomllib.loads(f"[data]\n{data_section('csv:rows.csv', tmp_path)}")["data"]["table"]
    assert section["columns"] == ["weight"]
    assert "id" not in section


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
    data = f"torchvision:{data}"
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


def _looked_at(folder: Path, text: str | bytes, *targets: str) -> tuple[dict[str, Any], str]:
    """What `init` writes of a table, which `[data]` then reads; and all its lines."""
    path = folder / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    lines = data_section(f"csv:{path}", folder, targets)
    section = tomllib.loads(f"[data]\n{lines}")["data"]
    return section["table"], lines


def _loads(folder: Path, lines: str) -> Splits:
    return load_data(DataConfig.model_validate(tomllib.loads(f"[data]\n{lines}")["data"]))


@pytest.mark.parametrize("mark", ["", "NA", "nan", "?"])
def test_a_column_of_numbers_of_which_some_are_missing_is_one_of_numbers(tmp_path: Path, mark: str) -> None:
    rows = "".join(f"{mark if each % 9 == 4 else 60 + each / 7},{each / 3}\n" for each in range(40))
    table, lines = _looked_at(tmp_path, f"weight,price\n{rows}")
    assert (table["columns"], table["kind"]) == (["weight"], "numbers")
    assert "categories" not in table
    assert "missing are 4 of weight" in lines
    # The line that is shown fills them.
    shown = lines.replace("# fill = ", "fill = ").replace("# categories = {}", "")
    assert _loads(tmp_path, shown).notes == ("4 missing values of weight are 62.79",)


def test_a_target_of_which_some_are_missing_holds_numbers_and_rows_are_to_go(tmp_path: Path) -> None:
    rows = "".join(f"{each},{'NA' if each == 7 else each / 3}\n" for each in range(1, 90, 2))
    table, lines = _looked_at(tmp_path, f"weight,price\n{rows}")
    assert table["kind"] == "numbers"
    with pytest.raises(UsageError, match=r"row 5: price is missing.*remove rows"):
        _loads(tmp_path, lines)


def test_decimal_commas_and_thousands_are_seen(tmp_path: Path) -> None:
    rows = "".join(f"{each},5;1.{100 + each},25\n" for each in range(40))
    table, lines = _looked_at(tmp_path, f"größe;preis\n{rows}")
    assert (table["decimal"], table["kind"], table["columns"]) == (",", "numbers", ["größe"])
    read = _loads(tmp_path, lines).train
    assert (read.inputs[3].tolist(), read.labels[3].tolist()) == ([3.5], [1103.25])


def test_a_text_in_the_encoding_of_spreadsheets_is_read_and_its_encoding_written_down(tmp_path: Path) -> None:
    rows = "".join(f"{each},{'männlich' if each % 2 else 'weiblich'}\n" for each in range(2, 42, 2))
    table, lines = _looked_at(tmp_path, f"größe,klasse\n{rows}7,männlich\n".encode("cp1252"))
    assert table["encoding"] == "cp1252"
    assert _loads(tmp_path, lines).train.meaning.labels == ("männlich", "weiblich")


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "row"])
def test_a_column_that_counts_rows_is_no_input(tmp_path: Path, name: str) -> None:
    rows = "".join(f"{each},{each % 7},{each % 2}\n" for each in range(30))
    table, lines = _looked_at(tmp_path, f"{name},visits,ill\n{rows}")
    assert table["columns"] == ["visits"]
    assert table.get("id", "") == name
    _loads(tmp_path, lines)


def test_words_of_their_own_are_no_categories_and_it_is_said(tmp_path: Path) -> None:
    # Names of patients would cross with the contract, as names of features.
    rows = "".join(f"{each % 9},{each % 3},patient {each if each % 10 else 0},{each % 2}\n" for each in range(80))
    table, lines = _looked_at(tmp_path, f"age,visits,said,ill\n{rows}")
    assert table["columns"] == ["age", "visits"]
    assert '# Not among them: "said", which holds words of its own in most rows: 73 different ones' in lines
    assert "patient" not in str(table)


DATES = [
    "2024-03-{:02}",
    "2024/3/{}",
    "{:02}.11.2023",
    "{}/11/23",
    "2024-03-{:02}T09:{:02}:00Z",
    "2024-03-{:02} 9:{:02} pm",
    "{:02}:30",
    "{} Mar 2024",
    "March {}, 2024",
]


@pytest.mark.parametrize("written", DATES)
@pytest.mark.parametrize("different", [5, 28])
def test_dates_are_no_categories_and_no_ids_and_it_is_said(tmp_path: Path, written: str, different: int) -> None:
    dates = ["NA", *(written.format(1 + each % different, each) for each in range(27))]
    rows = "".join(f"{each % 9},{date},{each % 2}\n" for each, date in enumerate(dates))
    separated = (
        rows.replace(",", ";")
        if ", " not in written
        else "".join(f"{each % 9};{date};{each % 2}\n" for each, date in enumerate(dates))
    )
    table, lines = _looked_at(tmp_path, f"age;seen;ill\n{separated}")
    assert table["columns"] == ["age"]
    assert "id" not in table
    assert '# Not among them: "seen", which holds dates or times' in lines
    _loads(tmp_path, lines)


@pytest.mark.parametrize(
    "cell", ["2024", "20240312", "3.5", "1.2.3", "12-13", "may", "2024-03", "1:2", "a 12:30 b", ""]
)
def test_what_is_no_date(cell: str) -> None:
    assert not is_date(cell)


def test_a_target_of_dates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the target left holds dates or times.*'2024-01-03'.*--target COLUMN"):
        _looked_at(tmp_path, "age,left\n50,2024-01-03\n60,2024-01-04\n")


def test_a_number_that_is_none_is_named_and_its_column_stays(tmp_path: Path) -> None:
    rows = "".join(f"{'inf' if each == 3 else each / 7},{each % 2}\n" for each in range(40))
    table, lines = _looked_at(tmp_path, f"weight,ill\n{rows}")
    assert table["columns"] == ["weight"]
    with pytest.raises(UsageError, match="row 5: weight is no number.*'inf'"):
        _loads(tmp_path, lines)


def test_columns_without_a_name_at_the_end_of_lines_are_passed_over(tmp_path: Path) -> None:
    table, lines = _looked_at(tmp_path, "age,visits,ill,\n" + "50,1,yes,\n60,2,no,\n" * 3)
    assert (table["target"], table["columns"]) == ("ill", ["age", "visits"])
    _loads(tmp_path, lines)


@pytest.mark.parametrize("first", ["sep=;\n", '"sep=;"\n', ""])
def test_the_line_of_spreadsheets_that_says_the_separator_is_none_of_names(tmp_path: Path, first: str) -> None:
    table, lines = _looked_at(tmp_path, first + "age;ill\n" + "50;yes\n60;no\n")
    assert (table["target"], table["columns"]) == ("ill", ["age"])
    assert len(_loads(tmp_path, lines).train) == 2


def test_bars_stand_between_cells_too(tmp_path: Path) -> None:
    table, lines = _looked_at(tmp_path, "age|ill\n50|yes\n60|no\n")
    assert table["columns"] == ["age"]
    assert len(_loads(tmp_path, lines).train) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("179.4,57.4,m\n160.1,80.0,f\n", "begins with numbers.*first line with the columns' names.*179.4"),
        ("age,age,ill\n1,2,yes\n", "the column 'age' twice"),
        ("a;b;ill\n1,2,yes\n", "row 2 has another number of cells"),
        ('a,ill\n1,"yes\n' + "2,no\n" * 40_000, r"line \d+ cannot be read"),
        (
            "comment,ill\n" + "".join(f"word {each % 27},yes\n" for each in range(40)),
            "can be an input.*words of its own",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        _looked_at(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_truth_in_parquet_is_written_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"smokes": [True, False] * 4, "ill": ["yes", "no"] * 4})
    parquet.write_table(table, path)
    read = _loads(tmp_path, data_section(f"parquet:{path}", tmp_path)).train
    assert read.inputs[:2].flatten().tolist() == [1, 0]


def test_a_script_names_all_peers_where_all_help_at_once(tmp_path: Path) -> None:
    made = make_node(tmp_path, NodeChoices("learner", "clinic", peers={"b": "127.0.0.1:1", "a": "127.0.0.1:2"}))
    sessions = [parse_script(path.read_text()).session for path in made.scripts]
    at_once = [protocol(each.protocol).topology is Topology.FAN_OUT for each in sessions]
    assert [each.acceptors for each in sessions] == [("b", "a") if each else ("b",) for each in at_once]
    assert any(at_once)


@pytest.mark.parametrize("role", ["learner", "client", "server"])
def test_each_first_script_says_how_inputs_are_brought_to_one_size(tmp_path: Path, role: str) -> None:
    made = make_node(tmp_path, NodeChoices(role, "clinic", peers={} if role == "server" else {"b": "127.0.0.1:1"}))
    assert made.scripts
    for path in made.scripts:
        assert '\n# normalization = "computed"\n' in path.read_text(), path
