"""A node's configuration: what is wrong in it is one line that names the place, and the environment goes over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from comity.errors import InvalidValue, MissingFile, UnknownKey, UsageError
from comity.node.config import NodeConfig, load_config
from comity.transport.retry import RetryPolicy
from learner_node.config import LearnerConfig
from provider_node.config import ProviderConfig

SECRET = "hunter2-hunter2"
COMPLETE = f"""
party = "hospital"
state_dir = "state"
listen = "127.0.0.1:0"
secret = "{SECRET}"
store = "postgresql+psycopg://hospital:{SECRET}@db/comity"

[tls]
certificate = "tls/certificate.pem"
key = "/keys/key.pem"
trust = "../trust.pem"

[data]
source = "digits"
partition = {{ name = "imbalance", gamma = 0.3, share = "provider" }}

[policy]
parties = ["clinic"]
max_rounds = 5

[peers.bank]
address = "bank.example.org:5500"

[retry]
retry_s = 2

[control]
listen = "127.0.0.2:5600"
"""

Load = Callable[..., NodeConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads a configuration from a text with one replacement."""

    def read(old: str = "", new: str = "", *, kind: type[NodeConfig] = ProviderConfig) -> NodeConfig:
        assert old in COMPLETE
        path = tmp_path / "node.toml"
        path.write_text(COMPLETE.replace(old, new) if old else COMPLETE + new)
        return load_config(kind, path)

    return read


def test_a_complete_configuration_is_read(load: Load) -> None:
    config = load()
    assert (config.party, config.listen, config.insecure) == ("hospital", "127.0.0.1:0", False)
    assert config.policy.parties == ("clinic",)
    assert config.policy.max_rounds == 5
    assert config.peers["bank"].address == "bank.example.org:5500"
    assert config.retry == RetryPolicy(call_s=30.0, retry_s=2.0)
    assert config.secret is not None
    assert config.secret.get_secret_value() == SECRET


def test_relative_paths_count_from_the_files_folder(load: Load, tmp_path: Path) -> None:
    config = load()
    assert config.state_dir == tmp_path / "state"
    assert config.control_socket == tmp_path / "state" / "control.sock"
    identity = config.identity
    assert identity.certificate == tmp_path / "tls" / "certificate.pem"
    assert identity.key == Path("/keys/key.pem")
    assert identity.trust == tmp_path / ".." / "trust.pem"
    assert config.control.operators == tmp_path / "operators"
    assert config.data.root == tmp_path
    assert load('source = "digits"', 'source = "digits"\nroot = "here"').data.root == tmp_path / "here"
    assert load('source = "digits"', 'source = "digits"\nroot = "/there"').data.root == Path("/there")


@pytest.mark.parametrize(
    ("old", "new", "place", "near"),
    [
        ('listen = "127.0.0.1:0"', 'lisen = "127.0.0.1:0"', "lisen", "listen"),
        ("certificate =", "certifcate =", "tls.certifcate", "certificate"),
        ("source =", "sorce =", "data.sorce", "source"),
        ("gamma =", "gama =", "data.partition.imbalance.gama", "gamma"),
        ("max_rounds =", "max_round =", "policy.max_round", "max_rounds"),
        ("address =", "adress =", "peers.bank.adress", "address"),
        ("retry_s =", "retry =", "retry.retry", "retry_s"),
        ("[policy]", "[polcy]", "polcy", "policy"),
        ("[control]\nlisten", "[control]\nlisen", "control.lisen", "listen"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(load: Load, old: str, new: str, place: str, near: str) -> None:
    with pytest.raises(UnknownKey, match=rf"node\.toml: unknown key {place}.*; did you mean {near}\?$"):
        load(old, new)


def test_a_key_near_none_is_refused_with_all_there_are(load: Load) -> None:
    with pytest.raises(
        UnknownKey, match=r"expected one of certificate, key, passphrase_file, trust, received colour; remove it$"
    ):
        load("[tls]", '[tls]\ncolour = "red"')


@pytest.mark.parametrize(
    ("old", "place"),
    [
        ('party = "hospital"', "party"),
        ('state_dir = "state"', "state_dir"),
        ('listen = "127.0.0.1:0"', "listen"),
        ('source = "digits"', "data.source"),
        ('trust = "../trust.pem"', "tls.trust"),
        ('address = "bank.example.org:5500"', "peers.bank.address"),
        ("gamma = 0.3, ", "data.partition.imbalance.gamma"),
    ],
)
def test_a_missing_value_is_named(load: Load, old: str, place: str) -> None:
    with pytest.raises(InvalidValue, match=rf"node\.toml: {place} is missing: expected a value for {place}"):
        load(old, "")


@pytest.mark.parametrize(
    ("old", "example"),
    [
        ('party = "hospital"', 'party = "hospital"'),
        ('state_dir = "state"', 'state_dir = "state"'),
        ('listen = "127.0.0.1:0"', 'listen = "0.0.0.0:5500"'),
        ('source = "digits"', 'source = "imagefolder:scans"'),
        ('trust = "../trust.pem"', 'trust = "trust"'),
        ('address = "bank.example.org:5500"', 'address = "hospital.example.org:5500"'),
    ],
)
def test_a_missing_value_is_shown_with_an_example_that_can_be_pasted(load: Load, old: str, example: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        load(old, "")
    assert f"for example {example}, received nothing" in str(caught.value)
    assert load(old, example)


def test_an_empty_file_is_told_what_it_lacks_first(tmp_path: Path) -> None:
    (tmp_path / "node.toml").touch()
    with pytest.raises(InvalidValue, match=r"node\.toml: \S+ is missing: expected a value for \S+, for example"):
        load_config(ProviderConfig, tmp_path / "node.toml")


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("max_rounds = 5", 'revoked = ["abc"]', "policy.revoked.0"),
        ("max_rounds = 5", "revoked = [1]", "policy.revoked.0"),
        ("max_rounds = 5", 'max_rounds = "many"', "policy.max_rounds"),
        ("max_rounds = 5", "max_rounds = 0", "policy.max_rounds"),
        ("retry_s = 2", "retry_s = -1", "retry.retry_s"),
        ('"hospital"', '"no spaces, please"', "party"),
        ('"hospital"', '"../etc"', "party"),
        ("gamma = 0.3", "gamma = 1.5", "data.partition.imbalance.gamma"),
        ('name = "imbalance"', 'name = "fair"', "data.partition"),
        ('["clinic"]', '"clinic"', "policy.parties"),
        ('listen = "127.0.0.1:0"', "listen = 5500", "listen"),
        ('source = "digits"', "source = 1", "data.source"),
    ],
)
def test_a_wrong_value_is_named(load: Load, old: str, new: str, place: str) -> None:
    with pytest.raises(InvalidValue, match=rf"node\.toml: {place} cannot be used") as caught:
        load(old, new)
    assert len(str(caught.value).splitlines()) == 1


def test_a_node_that_asks_names_its_peers_and_one_that_helps_its_address(load: Load) -> None:
    assert load('listen = "127.0.0.1:0"', "", kind=LearnerConfig).listen == ""
    with pytest.raises(InvalidValue, match="peers is missing"):
        load('[peers.bank]\naddress = "bank.example.org:5500"', "", kind=LearnerConfig)
    with pytest.raises(InvalidValue, match="listen is missing"):
        load('listen = "127.0.0.1:0"', "")


def test_without_tls_a_node_must_be_told_to_be_insecure(load: Load) -> None:
    tls = COMPLETE[COMPLETE.index("[tls]") : COMPLETE.index("[data]")]
    with pytest.raises(InvalidValue, match=r"tls is missing.*insecure = true"):
        _ = load(tls, "").identity
    assert not load(f"{tls}[data]", "insecure = true\n[data]").identity.is_secure


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, MissingFile, "received nothing"),
        (b"party = ", InvalidValue, "no TOML"),
        (b"party = 1\nparty = 2", InvalidValue, "no TOML"),
        (b"party = '\xff'", InvalidValue, "TOML in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, error: type[UsageError], message: str
) -> None:
    path = tmp_path / "node.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=rf"node\.toml.*{message}"):
        load_config(ProviderConfig, path)
    with pytest.raises(MissingFile, match="a folder"):
        load_config(ProviderConfig, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "got"),
    [
        ("PARTY", "bank", lambda config: config.party == "bank"),
        ("LISTEN", "127.0.0.1:6000", lambda config: config.listen == "127.0.0.1:6000"),
        ("DATA__SOURCE", "npz:mine.npz", lambda config: config.data.source == "npz:mine.npz"),
        ("POLICY__MAX_ROUNDS", "7", lambda config: config.policy.max_rounds == 7),
        ("RETRY__CALL_S", "1.5", lambda config: config.retry == RetryPolicy(call_s=1.5, retry_s=2.0)),
        ("TLS__KEY", "other.pem", lambda config: config.identity.key.name == "other.pem"),
        ("SECRET", "other", lambda config: config.secret.get_secret_value() == "other"),
    ],
)
def test_the_environment_goes_over_the_file(
    load: Load, monkeypatch: pytest.MonkeyPatch, name: str, value: str, got: Callable[[NodeConfig], bool]
) -> None:
    assert not got(load())
    monkeypatch.setenv(f"COMITY_NODE_{name}", value)
    config = load()
    assert got(config)
    # What stands beside it in the file is still there.
    assert config.data.partition is not None
    assert config.policy.parties == ("clinic",)


@pytest.mark.parametrize("name", ["POLICY__MAX_ROUNDS", "DRAIN_S"])
def test_a_wrong_value_in_the_environment_is_named(load: Load, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"COMITY_NODE_{name}", "many")
    with pytest.raises(InvalidValue, match=rf"{name.lower().replace('__', '.')} cannot be used"):
        load()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("LISTN", "COMITY_NODE_LISTEN"),
        ("POLICY__MAX_RONDS", "max_rounds"),
        ("TLS__CERTIFCATE", "certificate"),
        ("DATA__SORCE", "source"),
        ("CONTROL__LISEN", "listen"),
        ("PEERS__BANK__ADRESS", "address"),
    ],
)
def test_an_unknown_key_in_the_environment_is_refused(
    load: Load, monkeypatch: pytest.MonkeyPatch, name: str, near: str
) -> None:
    monkeypatch.setenv(f"COMITY_NODE_{name}", "1")
    with pytest.raises(UnknownKey, match=rf"the environment.*did you mean {near}\?$") as caught:
        load()
    assert f"COMITY_NODE_{name}" in str(caught.value)
    assert "node.toml" not in str(caught.value)


def test_fingerprints_are_read_with_colons_or_without(load: Load) -> None:
    plain = "0a" * 32
    spelled = ":".join(["0A"] * 32)
    assert load("max_rounds = 5", f'revoked = ["{spelled}", "{plain}"]').policy.revoked == {plain}
    assert load("max_rounds = 5", f'revoked = ["{spelled}"]').identity.revoked == {plain}


def test_operators_are_trusted_in_place_of_peers(load: Load, tmp_path: Path) -> None:
    config = load()
    assert config.control.listen == "127.0.0.2:5600"
    assert config.operator_identity.trust == tmp_path / "operators"
    assert (config.operator_identity.certificate, config.operator_identity.key) == (
        config.identity.certificate,
        config.identity.key,
    )
    tls = COMPLETE[COMPLETE.index("[tls]") : COMPLETE.index("[data]")]
    with pytest.raises(InvalidValue, match="control.listen needs tls"):
        _ = load(f"{tls}[data]", "insecure = true\n[data]").operator_identity


def test_the_store_is_the_configured_one(load: Load, tmp_path: Path) -> None:
    assert load().store_url == f"postgresql+psycopg://hospital:{SECRET}@db/comity"
    store = COMPLETE[COMPLETE.index("store =") : COMPLETE.index("[tls]")]
    assert load(store, "").store_url.startswith(f"sqlite:///{tmp_path}")


def test_secrets_are_not_shown(load: Load) -> None:
    config = load()
    for shown in (repr(config), str(config), repr(config.secret), config.model_dump_json()):
        assert SECRET not in shown


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f'secret = "{SECRET}"', f'secret = ["{SECRET}"]'),
        (f'secret = "{SECRET}"', f'secret = {{ value = "{SECRET}" }}'),
        (f'secret = "{SECRET}"', f'secrets = "{SECRET}"'),
        (f'store = "postgresql+psycopg://hospital:{SECRET}@db/comity"', f'store = ["{SECRET}"]'),
        (f'store = "postgresql+psycopg://hospital:{SECRET}@db/comity"', f'stor = "{SECRET}"'),
        ('key = "/keys/key.pem"', f'key = """-----BEGIN PRIVATE KEY-----\n{SECRET}"""'),
        ('certificate = "tls/certificate.pem"', f'certificate = """-----BEGIN PRIVATE KEY-----\n{SECRET}"""'),
        ('party = "hospital"', "party = 1"),
        ("[data]", "[date]"),
    ],
)
def test_secrets_are_not_shown_by_errors(load: Load, old: str, new: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(old, new)
    assert SECRET not in str(caught.value)
