"""What a node does again and again reads no session that is over: of these there are more every day, as long as contracts are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event

from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.acceptor import Acceptor
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.room import outstanding, promised
from comity.node.sessions.script import parse_script
from comity.session.session_registry import SessionRegistry
from comity.simulation.in_process import parties
from comity.store.memory_store import MemoryStore
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.store.store import StoredSession
from comity.transport.negotiation import encode_draft, encode_proposal
from tests.node.test_refused_sessions import SCRIPT


def test_what_is_over_is_not_read_for_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    script = parse_script(SCRIPT.format(policy="max_sessions = 2"))
    (clinic,), (hospital,) = parties(script)
    sessions = SessionRegistry(hospital.store)
    acceptor = Acceptor(hospital, AcceptedSessions(hospital, "site", sessions))
    contract, definition = draft_contract(script, clinic, "unwelcome")
    own = clinic.membership("analyst", contract)

    def all_of_them(store: MemoryStore) -> Sequence[StoredSession]:
        pytest.fail(f"all sessions are read of {store}")

    monkeypatch.setattr(MemoryStore, "sessions", all_of_them)
    acceptor.accepted.restore()
    acceptor.review("clinic", encode_draft(contract, own, definition))
    assert acceptor.accept("clinic", encode_proposal(contract, own, clinic.signer, definition)) is not None
    acceptor.accepted.expire(datetime.now(UTC))
    acceptor.accepted.look_at_data()
    assert (acceptor.accepted.counted, promised(hospital.store), outstanding(hospital.store, hospital.blobs)) == (
        1,
        0,
        0,
    )
    assert acceptor.accepted.cancel("unwelcome")
    sessions.drain()


def test_a_database_finds_those_that_are_on_by_an_index(tmp_path: Path) -> None:
    with closing(SqlStore(store_url(tmp_path))) as store:
        asked: list[str] = []
        engine = store._database.engine
        event.listen(engine, "before_cursor_execute", lambda _c, _u, text, *_: asked.append(text))
        store.ongoing()
        store.begun("clinic", "2026")
        with engine.connect() as connection:
            plans = [
                str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", ("x",) * text.count("?")).all())
                for text in tuple(asked)
            ]
    assert "INDEX sessions_state" in plans[0]
    assert "COVERING INDEX sessions_initiator" in plans[1]
