"""What an operator sees of sessions that are kept: when rounds ended, and why sessions ended before their time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comity.cli.sessions import print_sessions
from comity.contract import Contract
from comity.errors import SessionFailed
from comity.node.control_messages import summary_to_proto
from comity.node.sessions.failures import failure
from comity.node.sessions.overview import past_events, summarized
from comity.store.journal import Journal
from comity.store.sql_store import SqlStore
from comity.store.store import SessionState, StoredSession

BEGUN = "2026-01-02T03:04:05.000+00:00"


def keep(store: SqlStore, contract: Contract, name: str, state: SessionState, why: str = "") -> None:
    own = {"party": contract.initiator, "role": "student", "samples": 1, "receipt_key": "0" * 64}
    result = failure(SessionFailed(why)) if why else {}
    fields = contract.model_copy(update={"session": name}).model_dump(mode="json")
    store.save(StoredSession(name, fields, own, state=state, result=result, begun=BEGUN))


def test_rounds_are_told_with_the_time_at_which_they_ended(
    tmp_path: Path, make_contract: Callable[..., Contract]
) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    store = SqlStore(url)
    keep(store, make_contract(), "s-1", "active")
    before = datetime.now(UTC)
    Journal(store, "s-1").append("finished", 1, loss=0.5)
    after = datetime.now(UTC)
    store.close()
    # As after a restart.
    store = SqlStore(url)
    started, finished, *_ = past_events(store, "s-1")
    store.close()
    assert started.time == datetime.fromisoformat(BEGUN)
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= finished.time <= after


def test_why_a_session_ended_stands_on_its_line(
    tmp_path: Path, make_contract: Callable[..., Contract], capsys: pytest.CaptureFixture[str]
) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'node.db'}")
    keep(store, make_contract(), "s-1", "failed", "training diverged in round 3")
    keep(store, make_contract(), "s-2", "active")
    keep(store, make_contract(), "s-3", "finished")
    found = summarized(store, (), {"s-2": "hospital does not answer", "s-3": "no matter"})
    store.close()
    assert [each.why for each in found] == ["training diverged in round 3", "hospital does not answer", ""]
    print_sessions([summary_to_proto(each) for each in found])
    lines = {line.split()[0]: line.rstrip() for line in capsys.readouterr().out.splitlines()}
    assert lines["session"].endswith("why")
    assert lines["s-1"].endswith("training diverged in round 3")
    assert lines["s-2"].endswith("hospital does not answer")
