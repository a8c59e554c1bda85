"""What the leak guard holds of a client's updates: rows join the next one, and where nothing is left the client sits out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from comity.errors import PolicyRefusal, SessionFailed
from comity.node.audited import audited
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script, parse_script
from comity.protocol.audits import AuditContext
from comity.protocols.gradient_rewards import audits
from comity.protocols.gradient_rewards.studies import demo
from comity.simulation.in_process import parties, simulate
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.store.store import StoredSession

CLIENT = "client-4"
ROUNDS = 30


def script(preset: str, **privacy: object) -> Script:
    """The demo, shorter, under a preset."""
    text = demo.script(0)
    for each, other in (
        ("rounds = 100", f"rounds = {ROUNDS}"),
        ("baselines = true", "baselines = false"),
    ):
        text = text.replace(each, other)
    parsed = parse_script(text)
    section = {"audit": {"keep": True}, "privacy": {"preset": preset, **privacy}}
    found = parsed.model_dump(mode="json", exclude_unset=True)
    for name, party in found["party"].items():
        if name != "server":
            found["party"][name] = {**party, **section}
    return Script.model_validate(found)


def shown_by(script: Script, state: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The session's metrics, and what the audit finds of what one client sent."""
    _, outcome = simulate(script, state=state)
    _, (server,) = parties(script)
    contract, _ = draft_contract(script, server, script.session.id or "")
    section = script.party[CLIENT]
    with closing(SqlStore(store_url(state / CLIENT), read_only=True)) as store:
        kept = StoredSession(contract.session, {}, {"party": CLIENT})
        party = audited(section, CLIENT, contract, store, state / CLIENT)
        return dict(outcome.metrics), dict(audits.reconstruction(AuditContext(contract, kept, store, state, party)))


@pytest.mark.slow
def test_updates_and_their_differences_show_samples_unless_rows_are_held(tmp_path: Path) -> None:
    open_metrics, unheld = shown_by(script("public"), tmp_path / "open")
    metrics, held = shown_by(script("guarded"), tmp_path / "guarded")
    assert unheld["changes_that_show_a_sample"] >= 5
    assert unheld["successive_changes_that_show_a_sample"] >= 5
    assert held["samples_shown"] <= 1
    assert held["successive_samples_shown"] <= 1
    assert metrics["together_mean"] > open_metrics["together_mean"] - 0.03


def test_where_nothing_is_left_the_session_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the limits let pass: the rules alone are in its way.
    monkeypatch.setattr("comity.node.party.require_within", lambda *_: None)
    with pytest.raises(SessionFailed, match="sit it out"):
        simulate(script("guarded", min_distinct=100_000), state=tmp_path)


def test_a_guarded_client_refuses_terms_that_its_guard_cannot_rest_on() -> None:
    with pytest.raises(PolicyRefusal, match="min_distinct"):
        simulate(script("guarded", min_distinct=250))
