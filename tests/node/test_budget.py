"""Differential privacy in sessions: what is reported, what is spent, and what a party's budget refuses."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comity.errors import InvalidValue, PolicyRefusal
from comity.experiments import demo_script
from comity.ledger.verification import verify
from comity.node.sessions.budget import spent
from comity.node.sessions.script import Script, parse_script
from comity.privacy import NOT_COVERED
from comity.simulation.in_process import simulate
from comity.store.places import store_url
from comity.store.sql_store import SqlStore

PARTIES = ("learner", "provider")


def private(seed: int = 0, *, terms: str = '{ scope = "per_step", epsilon = 2.0 }', policy: str = "") -> Script:
    text = demo_script("assisted_learning", seed).replace("rounds = 10", "rounds = 2")
    text = text.replace("[session.terms]\n", f"[session.terms]\nprivacy = {terms}\n" if terms else "[session.terms]\n")
    return parse_script(f"{text}\n[party.learner.policy]\n{policy}\n")


def spending(state: Path) -> dict[str, float]:
    found = {}
    for party in PARTIES:
        with closing(SqlStore(store_url(state / party), read_only=True)) as store:
            verify(store.chains())
            found[party] = spent(store)
    return found


def test_each_party_reports_and_records_its_epsilon(tmp_path: Path) -> None:
    events = []
    result, _ = simulate(private(), events.append, state=tmp_path)
    reported: Any = result.metrics["privacy"]
    assert reported["not_covered"] == NOT_COVERED
    assert spending(tmp_path) == {party: reported[party]["epsilon"] for party in PARTIES}
    for party in PARTIES:
        assert 0 < reported[party]["epsilon"] < reported[party]["paper_epsilon"]
    (own,) = (event.fields for event in events if event.kind == "privacy")
    assert own["epsilon"] == reported["learner"]["epsilon"]


def test_a_budget_outlives_the_sessions_that_spend_it(tmp_path: Path) -> None:
    simulate(private(), state=tmp_path)
    before = spending(tmp_path)
    budget = f"max_epsilon = {1.5 * before['learner']}"
    with pytest.raises(PolicyRefusal, match="max_epsilon"):
        simulate(private(1, policy=budget), state=tmp_path)
    assert spending(tmp_path)["learner"] == before["learner"]
    # What is begun has been spent: the same session goes on.
    simulate(private(0, policy=budget), state=tmp_path)
    assert spending(tmp_path)["learner"] == before["learner"]


def test_a_budget_refuses_training_without_noise() -> None:
    with pytest.raises(PolicyRefusal, match="without differential privacy"):
        simulate(private(terms="", policy="max_epsilon = 100.0"))


@pytest.mark.slow
def test_a_target_for_the_whole_session_is_kept() -> None:
    result, _ = simulate(private(terms='{ scope = "total", epsilon = 3.0 }'))
    reported: Any = result.metrics["privacy"]
    for party in PARTIES:
        assert 2.5 < reported[party]["epsilon"] <= 3.0


@pytest.mark.parametrize("epsilon", ["0.0", "-1.0", "100.5", "nan"])
def test_an_epsilon_out_of_range_is_refused(epsilon: str) -> None:
    with pytest.raises(InvalidValue, match=r"session\.terms: privacy\.epsilon"):
        simulate(private(terms=f'{{ scope = "per_step", epsilon = {epsilon} }}'))


def test_batch_norm_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    inputs = generator.random((20, 3, 32, 32), dtype=np.float32)
    np.savez(tmp_path / "data.npz", x=inputs, y=np.arange(20) % 2)
    data = f'source = "npz:{tmp_path / "data.npz"}"'
    text = f"""
[session]
protocol = "assisted_learning"
acceptors = ["provider"]
rounds = 1
[session.model]
name = "resnet18-cifar"
options = {{ norm = "batch" }}
[session.terms]
iterations = 8
sampling_period = 1
privacy = {{ scope = "per_step", epsilon = 1.0 }}
[party.learner]
role = "learner"
[party.learner.data]
{data}
[party.provider]
role = "provider"
[party.provider.data]
{data}
"""
    with pytest.raises(InvalidValue, match="GroupNorm"):
        simulate(parse_script(text), state=tmp_path / "state")
    assert spending(tmp_path / "state") == dict.fromkeys(PARTIES, 0)
