"""Audits of every protocol, on what parties of its plain session sent: they say something of each that trains."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from comity.errors import InvalidValue
from comity.node.audited import audited
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.node.validation import validated
from comity.protocol.audits import AuditContext
from comity.protocol.extensions import loaded
from comity.protocol.registry import protocols
from comity.simulation.in_process import parties, simulate
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.store.store import StoredSession
from comity.training import audits
from tests.cases import Session, sessions_of

ABOUT_SAMPLES = {"membership", "reconstruction"}
NAMES = [each.name for each in protocols() if {audit.name for audit in each.extensions.audits} >= ABOUT_SAMPLES]


def test_every_protocol_of_the_papers_is_audited() -> None:
    assert set(NAMES) >= {
        "assisted_learning",
        "gradient_rewards",
        "learning_to_help",
        "nash_bargaining",
        "peer_study",
    }


def kept(session: Session) -> Script:
    """A session in which everybody keeps what is sent."""
    fields = session.script.model_dump(mode="json", exclude_unset=True)
    for party in fields["party"]:
        secret = session.script.party[party].secret
        fields["party"][party] |= {
            "audit": {"keep": True},
            "secret": None if secret is None else secret.get_secret_value(),
        }
    return validated(Script, fields, "the test's script")


def found(script: Script, party: str, folder: Path, name: str) -> dict[str, Any]:
    """What an audit finds of what a party sent."""
    drafting = next(local for side in parties(script) for local in side if local.name != party)
    contract, definition = draft_contract(script, drafting, script.session.id or "")
    run = next(each.run for each in definition.extensions.audits if each.name == name)
    with closing(SqlStore(store_url(folder / party), read_only=True)) as store:
        seen = audited(script.party[party], party, contract, store, folder / party)
        entered = StoredSession(contract.session, {}, {"party": party})
        return dict(loaded(run)(AuditContext(contract, entered, store, folder / party, seen)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "session"),
    # Where copies of its classifier leave a server, no rejector does.
    [*((name, next(iter(sessions_of(name)))) for name in NAMES), ("learning_to_help", "copies")],
)
def test_audits_say_something_of_each_that_trains(
    protocol: str, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "SHADOWS", 4)
    monkeypatch.setattr(audits, "MOST_ITERATIONS", 4)
    case = sessions_of(protocol)[session]
    script, definition = kept(case), case.definition
    simulate(script, state=tmp_path)
    trained = [name for name, each in script.party.items() if each.role in definition.trains]
    assert trained
    for party in trained:
        # What a learner of the bargaining sends is of all gradients together, and no change of its own.
        if protocol == "nash_bargaining" and party == "learner":
            continue
        shown = found(script, party, tmp_path, "reconstruction")
        assert shown["changes"] > 0
        assert shown["samples"] > 0
        assert shown["blobs_not_kept"] == 0
        if (protocol, party) == ("nash_bargaining", "related"):
            with pytest.raises(InvalidValue, match="head is its own"):
                found(script, party, tmp_path, "membership")
            continue
        told = found(script, party, tmp_path, "membership")
        assert told["models"] > 0
        assert told["others"] > 0
        assert 0 <= told["loss_auc"] <= 1
        assert 0 <= told["loss_tpr_at_1_percent"] <= 1
