"""What a model of others' code does to memory, time or the interpreter is done to another process, and is one line."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from comity.errors import ComityError, InvalidValue, NodeDraining, RefusedError, TooManyCalls
from comity.node.config import PartyConfig
from comity.node.party import LocalParty
from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.acceptor import Acceptor
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.node.trials.apart import Trials
from comity.session.limits import Limits
from comity.session.session_registry import SessionRegistry
from comity.simulation.in_process import parties
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from comity.transport.negotiation import encode_draft, encode_proposal
from comity.transport.retry import DRAFT
from tests.e2e.conftest import until

CODE = """
import ctypes, math, os, sys, time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, n, outputs, how):
        super().__init__()
        self.out, self.how = nn.Linear(n, outputs), how
    def forward(self, inputs):
        self.how()
        return self.out(inputs.flatten(1))

def nothing():
    print("a model may print")

def crash():
    ctypes.string_at(0)

def eat():
    kept = []
    while True:
        kept.append(torch.ones(16 << 20))

def stay():
    while True:
        time.sleep(1)

def stay_apart():
    if os.getppid() == int(os.environ["TESTING"]):
        stay()

def leave():
    os._exit(0)

def exit():
    sys.exit(3)

WAYS = {each.__name__: each for each in (nothing, crash, eat, stay, stay_apart, leave, exit)}

def in_training(input_shape, outputs, *, how: str):
    return Net(math.prod(input_shape), outputs, WAYS[how])

def as_it_is_built(input_shape, outputs, *, how: str):
    WAYS[how]()
    return Net(math.prod(input_shape), outputs, nothing)
"""
SCRIPT = """
[session]
protocol = "assisted_learning"
acceptors = ["provider"]
rounds = 1
model = {{ name = "{model}", options = {{ how = "{how}" }} }}
terms = {{ batch_size = 8, iterations = 16, sampling_period = 2, learning_rate = 0.01 }}
"""
PLAIN = """
[session]
protocol = "assisted_learning"
acceptors = ["provider"]
rounds = 1
model = { name = "mlp" }
terms = { batch_size = 8, iterations = 16, sampling_period = 2, learning_rate = 0.01 }
"""
PARTIES = """
[party.learner]
role = "learner"
data = { source = "digits", per_class = 4 }
models = { trained = "python:others_models:in_training" }
privacy = { preset = "public" }
[party.provider]
role = "provider"
data = { source = "digits", per_class = 4 }
models = { trained = "python:others_models:in_training" }
privacy = { preset = "public" }
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "others_models.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield tmp_path / "code"
    sys.modules.pop("others_models", None)


def party(own_model: Mapping[str, Any] | None = None, **limits: float) -> LocalParty:
    config = PartyConfig.model_validate(
        {
            "data": {"source": "digits", "per_class": 4},
            "models": {
                "trained": "python:others_models:in_training",
                "built": "python:others_models:as_it_is_built",
            },
            "policy": {"max_memory_bytes": 300_000_000},
            "limits": limits,
            "protocols": {} if own_model is None else {"assisted-learning": {"own_model": own_model}},
        }
    )
    made = LocalParty("clinic", config, GivenSecrets(b"clinic"), MemoryStore())
    made.trials = Trials("clinic", config, None)
    return made


def tried(asking: LocalParty, model: str, how: str) -> None:
    contract, _ = draft_contract(parse_script(SCRIPT.format(model=model, how=how)), asking, "trial")
    asking.tried_task(contract)


@pytest.mark.usefixtures("code")
def test_a_model_that_works_is_taken_and_not_tried_again_in_another_session(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = party()
    tried(asking, "trained", "nothing")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    contract, _ = draft_contract(parse_script(SCRIPT.format(model="trained", how="nothing")), asking, "another")
    assert asking.try_apart(contract)
    assert asking.trials is not None
    for other in ("other data", "other terms"):
        terms = contract.terms.model_copy(update={"batch_size": 4})
        with pytest.raises(InvalidValue, match="ended with code"):
            if other == "other data":
                asking.trials.require(contract, ["trained"], other)
            else:
                asking.try_apart(contract.model_copy(update={"terms": terms}))


@pytest.mark.usefixtures("code")
def test_only_models_of_others_code_go_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    asking = party()
    contract, _ = draft_contract(parse_script(PLAIN), asking, "trial")
    assert not asking.try_apart(contract)
    asking.tried_task(contract)


@pytest.mark.usefixtures("code")
def test_a_model_that_stays_here_goes_apart_as_well() -> None:
    asking = party(own_model={"name": "trained", "options": {"how": "crash"}, "learning_rate": 0.01})
    with pytest.raises(InvalidValue, match=r"mlp, trained on its data.*ended with SIGSEGV"):
        draft_contract(parse_script(PLAIN), asking, "trial")


@pytest.mark.usefixtures("code")
def test_a_trial_keeps_nobody_else_and_ends_with_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTING", str(os.getpid()))
    (learner,), (provider,) = parties(parse_script(SCRIPT.format(model="trained", how="stay_apart") + PARTIES))
    trials = provider.trials = Trials("provider", provider.config, None)
    script = parse_script(SCRIPT.format(model="trained", how="stay_apart"))
    contract, definition = draft_contract(script, learner, "trial")
    own = learner.membership(definition.initiator, contract)
    sessions = SessionRegistry(provider.store)
    acceptor = Acceptor(provider, AcceptedSessions(provider, "provider", sessions))
    proposal = encode_proposal(contract, own, learner.signer, definition)
    with ThreadPoolExecutor() as threads:
        try:
            first = threads.submit(acceptor.accept, "learner", proposal)
            while not trials._processes and not first.done():
                time.sleep(0.01)
            assert threads.submit(acceptor.accepted.events, "trial").result(timeout=60) is None
            with pytest.raises(TooManyCalls):
                threads.submit(acceptor.accept, "learner", proposal).result(timeout=60)
            with pytest.raises(TooManyCalls):
                threads.submit(acceptor.review, "learner", encode_draft(contract, own, definition)).result(timeout=60)
            assert not first.done()
        finally:
            trials.end()
        with pytest.raises(NodeDraining):
            first.result(timeout=60)
    assert provider.store.find("trial") is None


def test_who_sends_slow_models_keeps_those_waiting_who_do_so_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, does in (("sleeps", "exec sleep 600"), ("answers", "cat >/dev/null; echo '{}'")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o700)
    sleeps, answers = str(tmp_path / "sleeps"), str(tmp_path / "answers")
    trials = Trials("provider", PartyConfig.model_validate({"limits": {"call_s": 0.05, "trial_s": 60}}), None)
    contract, _ = draft_contract(parse_script(PLAIN), party(), "trial")

    def ask(who: str, how: str, threads: ThreadPoolExecutor) -> Future[None]:
        """Has a contract of a party tried, by a process that does no more than it is told here."""
        monkeypatch.setattr(sys, "executable", how)
        asked = contract.model_copy(update={"initiator": who, "seed": len(who)})
        return threads.submit(trials.require, asked, [who], "data")

    with ThreadPoolExecutor() as threads:
        try:
            # Its first keeps others waiting, who are told to ask again, and none of a provider's own.
            first = ask("mallory", sleeps, threads)
            until(lambda: len(trials._processes) == 1, "it is tried")
            with pytest.raises(TooManyCalls, match="models of other parties"):
                ask("learner", answers, threads).result(timeout=60)
            ask("provider", answers, threads).result(timeout=60)
            trials._processes.copy().pop().kill()
            with pytest.raises(InvalidValue, match="SIGKILL"):
                first.result(timeout=60)
            # Its next ones do not.
            ask("mallory", sleeps, threads)
            until(lambda: len(trials._processes) == 1, "it is tried")
            ask("learner", answers, threads).result(timeout=60)
            ask("another", answers, threads).result(timeout=60)
        finally:
            trials.end()


def test_who_checks_waits_for_longer_than_a_trial_may_take() -> None:
    assert Limits().trial_s < DRAFT.call_s


slow = pytest.mark.slow


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize(
    ("model", "how", "said"),
    [
        ("trained", "crash", "ended with SIGSEGV"),
        pytest.param("built", "crash", "ended with SIGSEGV", marks=slow),
        ("trained", "eat", "can't allocate memory"),
        pytest.param("built", "eat", "can't allocate memory", marks=slow),
        pytest.param("trained", "leave", "ended with code 0", marks=slow),
        pytest.param("built", "leave", "ended with code 0", marks=slow),
        pytest.param("trained", "exit", "ended with code 3|SystemExit", marks=slow),
        pytest.param("trained", "stay", "more than 3 s, by limits.trial_s", marks=slow),
        pytest.param("built", "stay", "more than 3 s, by limits.trial_s", marks=slow),
    ],
)
def test_what_it_does_is_done_to_another_process(model: str, how: str, said: str) -> None:
    with pytest.raises(ComityError, match=said) as caught:
        tried(party(trial_s=3.0) if how == "stay" else party(), model, how)
    assert isinstance(caught.value, InvalidValue | RefusedError)
    assert "\n" not in str(caught.value)
