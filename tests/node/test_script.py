"""A script: what becomes a contract, and what is wrong in it as one line that names the place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comity.contract import HeadSpec, Preprocessing
from comity.errors import (
    InvalidValue,
    MalformedMessage,
    RefusedError,
    TaskMismatch,
    UnknownKey,
    UnknownModel,
    UnknownTask,
    UnsupportedProtocol,
)
from comity.node.config import PartyConfig
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script, parse_script, session_text
from comity.protocols.assisted_learning.studies.demo import script as demo_script
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets

SESSION = """
[session]
protocol = "assisted_learning"
acceptors = ["hospital"]
rounds = 3

[session.model]
name = "mlp"
options = { hidden = 8 }

[session.terms]
learning_rate = 0.01
"""
PARTY = """
[party.clinic]
role = "learner"
secret = "hunter2"

[party.clinic.data]
source = "digits"
"""


def changed(old: str, new: str) -> Script:
    assert old in SESSION + PARTY
    return parse_script((SESSION + PARTY).replace(old, new), "session.toml")


def clinic() -> LocalParty:
    config = PartyConfig.model_validate({"data": {"source": "digits", "per_class": 2}})
    return LocalParty("clinic", config, GivenSecrets(b"secret"), MemoryStore())


def test_a_script_becomes_a_contract() -> None:
    contract, definition = draft_contract(parse_script(SESSION), clinic(), "s-9")
    assert (contract.protocol, contract.version) == (definition.name, definition.version)
    assert (contract.session, contract.seed, contract.rounds) == ("s-9", 0, 3)
    assert (contract.initiator, contract.acceptors, contract.egress) == ("clinic", ("hospital",), definition.egress)
    assert (contract.task.kind, contract.task.inputs.shape) == ("classification", (1, 8, 8))
    assert contract.task.heads == (HeadSpec(name="class", size=10),)
    assert contract.terms == AssistedLearningTerms(learning_rate=0.01)
    assert contract.models["model"].options == {"hidden": 8}
    assert len(contract.models["model"].signature) == 64


def test_a_script_may_name_its_session_and_its_normalization() -> None:
    text = SESSION.replace("rounds", 'id = "mine"\nnormalization = { mean = [0.5], std = [2] }\nrounds')
    contract, _ = draft_contract(parse_script(text), clinic(), "s-9")
    assert contract.session == "mine"
    assert contract.task.inputs.preprocessing == Preprocessing(mean=(0.5,), std=(2.0,))


def test_a_script_may_name_its_models() -> None:
    named = SESSION.replace("[session.model]", "[session.models.model]")
    contracts = [draft_contract(parse_script(text), clinic(), "s-9")[0] for text in (SESSION, named)]
    assert contracts[0].hash == contracts[1].hash
    for text, said in (
        (named + '[session.model]\nname = "mlp"', "session.model is given twice"),
        (SESSION + '[session.models.other]\nname = "mlp"', "expected model, received .*other"),
        (SESSION.replace("[session.model]", "[session.models.other]"), "session.models.model is missing"),
    ):
        with pytest.raises((InvalidValue, MalformedMessage), match=said):
            draft_contract(parse_script(text), clinic(), "s-9")


def test_a_script_may_say_what_the_task_is() -> None:
    text = SESSION + "[session.task]\ninput_shape = [4]\n"
    head = '[[session.task.heads]]\nname = "class"\nsize = 2\nlabels = ["benign", "malignant"]\n'
    short, long = (draft_contract(parse_script(text + each), clinic(), "s-9")[0].task for each in ("classes = 2", head))
    assert short.heads == (HeadSpec(name="class", size=2),)
    assert long.heads == (HeadSpec(name="class", size=2, labels=("benign", "malignant")),)
    for each, error, said in (
        ("", InvalidValue, "one head, class"),
        ("classes = 1", InvalidValue, "2 classes or more"),
        ('kind = "weather"\nclasses = 2', UnknownTask, "comity.tasks"),
    ):
        with pytest.raises(error, match=said):
            draft_contract(parse_script(text + each), clinic(), "s-9")


def test_a_protocol_says_which_tasks_it_is_for() -> None:
    text = SESSION.replace("assisted_learning", "gradient_rewards")
    task = '[session.task]\nkind = "reinforcement"\noptions = { environment = "CartPole-v1" }\ninput_shape = [4]\nclasses = 2'
    with pytest.raises(TaskMismatch, match="gradient_rewards is not for such a task: expected classification"):
        draft_contract(parse_script(text + task), clinic(), "s-9")


def test_a_script_names_models_and_no_code() -> None:
    with pytest.raises(UnknownModel, match=r"python:os:system.*\[models\] of node.toml"):
        draft_contract(changed('"mlp"', '"python:os:system"'), clinic(), "s-9")


@pytest.mark.parametrize(
    ("old", "new", "place", "near"),
    [
        ("[session]", "[sesion]", "sesion", "session"),
        ("rounds =", "round =", "session.round", "rounds"),
        ("options =", "option =", "session.model.option", "options"),
        ("[party.clinic.data]", "[party.clinic.date]", "party.clinic.date", "data"),
        ("source =", "sorce =", "party.clinic.data.sorce", "source"),
        ("role =", "rôle =", "party.clinic.rôle", "role"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(old: str, new: str, place: str, near: str) -> None:
    new = new.replace("rôle", '"rôle"')
    with pytest.raises(UnknownKey, match=rf"session\.toml: unknown key {place}.*; did you mean {near}\?$"):
        changed(old, new)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('acceptors = ["hospital"]', "", "session.acceptors is missing"),
        ('name = "mlp"', "", "session.model.name is missing"),
        ("rounds = 3", "rounds = 0", "session.rounds cannot be used"),
        ("rounds = 3", "rounds = 10001", "session.rounds cannot be used"),
        ("rounds = 3", "rounds = 3\nseed = -1", "session.seed cannot be used"),
        ("rounds = 3", 'rounds = 3\nid = "a/b"', "session.id cannot be used"),
        ('["hospital"]', "[]", "session.acceptors cannot be used"),
        ("hidden = 8", "hidden = [8]", "session.model.options.hidden.* cannot be used"),
        ("[party.clinic", "[party.'a b'", "party.* cannot be used"),
        ("[session]", "session", "no TOML"),
    ],
)
def test_a_wrong_value_is_named(old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message) as caught:
        changed(old, new)
    assert len(str(caught.value).splitlines()) == 1
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        (
            "learning_rate =",
            "learning_rat =",
            UnknownKey,
            r"session\.terms: .*learning_rat.*did you mean learning_rate",
        ),
        ("0.01", "0.0", InvalidValue, r"session\.terms: learning_rate cannot be used"),
        ("0.01", "nan", InvalidValue, r"session\.terms: learning_rate cannot be used"),
        (
            '["hospital"]',
            '["hospital", "hospital"]',
            InvalidValue,
            "session.acceptors cannot be used: expected each provider",
        ),
        ('"assisted_learning"', '"assisted_leaning"', UnsupportedProtocol, "did you mean assisted_learning"),
        ('"mlp"', '"mpl"', UnknownModel, "did you mean 'mlp'"),
        ("hidden = 8", "hiden = 8", InvalidValue, "hiden"),
    ],
)
def test_what_only_the_asker_can_tell_is_named_too(
    old: str, new: str, error: type[InvalidValue | RefusedError], message: str
) -> None:
    with pytest.raises(error, match=message):
        draft_contract(changed(old, new), clinic(), "s-9")


def test_a_node_runs_no_script_with_parties() -> None:
    script = parse_script(SESSION + PARTY)
    with pytest.raises(InvalidValue, match=r"received \[party\.clinic\]; use comity simulate"):
        script.require_no_parties()
    parse_script(SESSION).require_no_parties()
    parse_script(session_text(script)).require_no_parties()
    assert parse_script(session_text(script)).session == script.session


def test_secrets_are_not_shown() -> None:
    script = parse_script(SESSION + PARTY)
    assert "hunter2" not in f"{script!r} {script} {script.model_dump_json()}"
    assert "hunter2" not in session_text(script)


def test_the_demos_script_is_one(make_contract: Callable[..., Any]) -> None:
    script = parse_script(demo_script(3))
    assert set(script.party) == {"learner", "provider"}
    assert script.session.seed == 3
    AssistedLearningTerms.model_validate(script.session.terms)
