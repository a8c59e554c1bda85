"""A script: what becomes a contract, and what is wrong in it as one line that names the place."""

from __future__ import annotations

import pytest
from teacher_votes.terms import TeacherVotesTerms

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
from comity.experiments import demo_script
from comity.node.config import PartyConfig
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script, parse_script, session_text
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets

SESSION = """
[session]
protocol = "teacher_votes"
acceptors = ["hospital"]
rounds = 3

[session.models.student]
name = "mlp"
options = { hidden = 8 }

[session.terms]
queries = 5
"""
PARTY = """
[party.clinic]
role = "student"
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
    assert (contract.initiator, contract.acceptors, contract.egress) == ("clinic", ("hospital",), ("contract", "vote"))
    assert (contract.task.kind, contract.task.inputs.shape) == ("classification", (1, 8, 8))
    assert contract.task.heads == (HeadSpec(name="class", size=10),)
    assert contract.terms == TeacherVotesTerms(queries=5)
    assert contract.models["student"].options == {"hidden": 8}
    assert len(contract.models["student"].signature) == 64


def test_a_script_may_name_its_session_and_its_normalization() -> None:
    text = SESSION.replace("rounds", 'id = "mine"\nnormalization = { mean = [0.5], std = [2] }\nrounds')
    contract, _ = draft_contract(parse_script(text), clinic(), "s-9")
    assert contract.session == "mine"
    assert contract.task.inputs.preprocessing == Preprocessing(mean=(0.5,), std=(2.0,))


def test_a_script_names_the_protocols_models() -> None:
    for text, said in (
        (SESSION + '[session.models.other]\nname = "mlp"', "expected student, received .*other"),
        (SESSION + '[session.model]\nname = "mlp"', "expected student, received .*model"),
        (SESSION.replace("[session.models.student]", "[session.models.other]"), "session.models.student is missing"),
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
    task = '[session.task]\nkind = "reinforcement"\noptions = { environment = "CartPole-v1" }\ninput_shape = [4]\nclasses = 2'
    with pytest.raises(TaskMismatch, match="teacher_votes is not for such a task: expected classification"):
        draft_contract(parse_script(SESSION + task), clinic(), "s-9")


def test_a_script_names_models_and_no_code() -> None:
    with pytest.raises(UnknownModel, match=r"python:os:system.*\[models\] of node.toml"):
        draft_contract(changed('"mlp"', '"python:os:system"'), clinic(), "s-9")


@pytest.mark.parametrize(
    ("old", "new", "place", "near"),
    [
        ("[session]", "[sesion]", "sesion", "session"),
        ("rounds =", "round =", "session.round", "rounds"),
        ("options =", "option =", "session.models.student.option", "options"),
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
        ('name = "mlp"', "", "session.models.student.name is missing"),
        ("rounds = 3", "rounds = 0", "session.rounds cannot be used"),
        ("rounds = 3", "rounds = 10001", "session.rounds cannot be used"),
        ("rounds = 3", "rounds = 3\nseed = -1", "session.seed cannot be used"),
        ("rounds = 3", 'rounds = 3\nid = "a/b"', "session.id cannot be used"),
        ('["hospital"]', "[]", "session.acceptors cannot be used"),
        ("hidden = 8", "hidden = [8]", "session.models.student.options.hidden.* cannot be used"),
        ("[party.clinic", "[party.'a b'", "party has a name that it does not take"),
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
        ("queries =", "querys =", UnknownKey, r"session\.terms: .*querys.*did you mean queries"),
        ("queries = 5", "queries = 0", InvalidValue, r"session\.terms: queries cannot be used"),
        ("queries = 5", "queries = nan", InvalidValue, r"session\.terms: queries cannot be used"),
        (
            '["hospital"]',
            '["hospital", "hospital"]',
            InvalidValue,
            "session.acceptors cannot be used: expected each teacher",
        ),
        ('"teacher_votes"', '"teacher_vots"', UnsupportedProtocol, "did you mean teacher_votes"),
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


def test_the_demos_script_is_one() -> None:
    script = parse_script(demo_script("teacher-votes", 3))
    assert {each.role for each in script.party.values()} == {"student", "teacher"}
    assert script.session.seed == 3
    TeacherVotesTerms.model_validate(script.session.terms)
