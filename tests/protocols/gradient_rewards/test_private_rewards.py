"""Clients whose training differential privacy covers: what it takes of their budgets, and that the preset asks for it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from comity.errors import PolicyRefusal
from comity.node.sessions.budget import spent
from comity.node.sessions.script import Script, parse_script
from comity.protocols.gradient_rewards.studies import demo
from comity.simulation.in_process import simulate
from comity.store.places import store_url
from comity.store.sql_store import SqlStore

ROUNDS = 3
EPSILON = 4.0
CLIENTS = [f"client-{number}" for number in range(1, 6)]


def script(privacy: str = f'privacy = {{ scope = "total", epsilon = {EPSILON} }}', *, budget: float = 5.0) -> Script:
    """The demo, shorter, with clients that train with noise alone."""
    text = demo.script(0)
    for each, other in (
        ("rounds = 100", f"rounds = {ROUNDS}"),
        ("baselines = true", "baselines = false"),
        ("[session.terms]\n", f"[session.terms]\n{privacy}\n"),
        ('"guarded"', '"dp"'),
        ('role = "client"\n', f'role = "client"\npolicy = {{ max_epsilon = {budget} }}\n'),
    ):
        assert each in text
        text = text.replace(each, other)
    return parse_script(text)


def test_a_client_that_wants_noise_refuses_a_session_without() -> None:
    with pytest.raises(PolicyRefusal, match=r"max_epsilon|session\.terms\.privacy"):
        simulate(script(""))


def test_what_a_session_may_spend_is_entered_once_and_stays_within_what_was_agreed(tmp_path: Path) -> None:
    result, _ = simulate(script(), state=tmp_path)
    assert result.digest == simulate(script())[0].digest
    for client in CLIENTS:
        with closing(SqlStore(store_url(tmp_path / client), read_only=True)) as store:
            facts = [entry.fact for entry in store.entries() if entry.fact.matter == "privacy"]
            assert len(facts) == 1
            assert 0 < spent(store) <= EPSILON
    with closing(SqlStore(store_url(tmp_path / "server"), read_only=True)) as store:
        assert spent(store) == 0


def test_noise_is_in_what_is_sent() -> None:
    plain = script("").model_dump(mode="json", exclude_unset=True)
    for name in CLIENTS:
        del plain["party"][name]["policy"]
        plain["party"][name]["privacy"] = {"preset": "guarded"}
    without, _ = simulate(Script.model_validate(plain))
    noisy, _ = simulate(script())
    assert noisy.digest != without.digest
    assert noisy.metrics["together_mean"] < without.metrics["together_mean"]


def test_a_budget_that_is_too_small_refuses_the_session() -> None:
    with pytest.raises(PolicyRefusal, match="max_epsilon"):
        simulate(script(budget=1.0))
