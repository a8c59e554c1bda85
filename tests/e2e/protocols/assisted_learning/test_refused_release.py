"""A session of which the guard refuses a release after some rounds: what the rounds until then came to is kept, and said."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from comity.node.sessions.script import parse_script, session_text
from comity.simulation.processes import running
from comity.store.places import store_url
from comity.store.sql_store import SqlStore

SCRIPT = """
[session]
protocol = "assisted_learning"
id = "refused"
acceptors = ["hospital"]
rounds = 10
seed = 3
model = { name = "turning" }

[session.terms]
learning_rate = 0.1
optimizer = "sgd"
batch_size = 64
iterations = 40
sampling_period = 5
evaluation_batch_size = 64

[party.clinic]
role = "learner"
secret = "c"
data = { source = "digits", per_class = 40, partition = { name = "uniform", parties = 2, index = 0 } }
privacy = { preset = "guarded", width_factor = 1.0 }
models = { turning = "python:tests.e2e.protocols.assisted_learning.turning:build" }

[party.hospital]
role = "provider"
secret = "h"
data = { source = "digits", per_class = 40, partition = { name = "uniform", parties = 2, index = 1 } }
privacy = { preset = "guarded", width_factor = 1.0 }
models = { turning = "python:tests.e2e.protocols.assisted_learning.turning:build" }
"""


@pytest.mark.slow
def test_the_model_of_the_finished_rounds_is_kept_and_said(comity: Any, short_path: Path) -> None:
    script = parse_script(SCRIPT)
    path = short_path / "session.toml"
    path.write_text(session_text(script))
    with running(script, short_path) as nodes:
        ended = comity("run", path, "--node", "clinic", cwd=short_path)
        assert ended.returncode == 1
        shown = comity.json("show", "refused", "--node", "clinic", cwd=short_path)
        kept = shown["result"]["kept"]
        assert shown["state"] == "failed"
        assert 0 < kept["rounds"] == shown["rounds_finished"] < 10
        assert "comity show refused" in ended.stderr
        told = comity("show", "refused", "--node", "clinic", cwd=short_path).stdout
        assert "sessions/refused" in told
        folder = nodes["clinic"].folder / "state" / "sessions" / "refused"
        assert (folder / "result.json").exists()
        assert list(folder.glob("*.safetensors"))
    # It was the guard, and what it found stays at home.
    judged: list[bool] = []
    for name in nodes:
        with closing(SqlStore(store_url(short_path / name / "state"), read_only=True)) as store:
            facts = [entry.fact for entry in store.entries("refused")]
        judged += [fact.body["refused"] for fact in facts if fact.matter == "judged"]
    assert judged.count(True) == 1
    assert len(judged) > 10
