"""A client that trains its rejector by copies of the server's classifier, also while the server is dead."""

from __future__ import annotations

import json
from contextlib import closing
from itertools import pairwise
from typing import Any

from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script, session_text
from comity.simulation.processes import prepare
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from tests.protocols.learning_to_help.sessions import COPIES

SESSION = "demo-3"
# Eight copies, and time enough between any two of them for the server to be killed.
_SCRIPT = COPIES.replace("copy_every = 6", "copy_every = 2").replace("rejector_epochs = 1", "rejector_epochs = 800")


def test_a_client_trains_on_while_the_server_is_dead_and_ends_with_it_when_it_is_back(
    own_site: Any, typed: Any, tmp_path: Any
) -> None:
    assert "copy_every = 2" in _SCRIPT
    assert "rejector_epochs = 800" in _SCRIPT
    nodes = prepare(parse_script(_SCRIPT), own_site.folder)
    client, server = nodes["client"], nodes["server"]
    try:
        for node in nodes.values():
            node.start()
        for node in nodes.values():
            node.wait_ready()
        with ControlClient(client.control_url) as control:
            assert control.run(session_text(parse_script(_SCRIPT))) == SESSION
            done = 0
            for event in control.watch(SESSION):
                done += event.kind == "rejector-stepped"
                if done == 1 and event.kind == "rejector-stepped":
                    server.kill()
                if done == 8:
                    break
            server.start()
            server.wait_ready()
            ended = [event.kind for event in control.watch(SESSION)][-1]
            details = control.details(SESSION)
    finally:
        for node in nodes.values():
            node.stop()
    assert details.summary.state == "finished", (ended, details)
    steps = json.loads(details.result)["metrics"]["rejector_steps"]
    # Which copy each step went by is known, and no step is missing.
    copies = [each["copy"] for each in steps]
    assert copies[0] == 1
    assert copies == sorted(copies)
    assert all(copy <= part for part, copy in enumerate(copies, 1))
    assert copies[-1] < 8
    assert steps[0]["first"] == 1
    assert all(after["first"] == before["last"] + 1 for before, after in pairwise(steps))
    with closing(SqlStore(store_url(client.folder / "state"), read_only=True)) as store:
        used = [each.fact.body["copy"] for each in store.entries(SESSION) if each.fact.matter == "used"]
    assert used == copies
    for node in (client, server):
        assert typed.json("ledger", "verify", "--state", node.folder / "state", cwd=tmp_path)["verified"]
    exported = typed("ledger", "export", "--state", server.folder / "state", cwd=tmp_path)
    (tmp_path / "theirs.json").write_text(exported.stdout)
    compared = typed("ledger", "compare", "theirs.json", "--state", client.folder / "state", cwd=tmp_path)
    assert compared.returncode == 0, compared.stdout + compared.stderr
