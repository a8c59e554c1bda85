"""Tasks beside classification between clients and a server: the bits of their simulation, and the same tests."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate
from comity.simulation.processes import running
from tests.samples_of_tasks import script

ROLES = {**{f"client-{number}": "client" for number in (1, 2, 3)}, "server": "server"}
TERMS: dict[str, object] = {"clients": 3, "learning_rate": 0.2, "batch_size": 16, "epochs": 1}


@pytest.mark.parametrize(
    "kind", ["multilabel", "regression", "segmentation", pytest.param("several", marks=pytest.mark.slow)]
)
def test_daemons_end_in_the_bits_of_the_simulation(kind: str, short_path: Path) -> None:
    wanted = parse_script(script(short_path, kind, "gradient_rewards", ROLES, TERMS, 2))
    with ExitStack() as stack:
        nodes = stack.enter_context(running(wanted, short_path / "nodes", threads=1))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        drive(wanted, clients, SessionProgress(quiet=True))
        own = {
            name: json.loads(
                (short_path / "nodes" / name / "state" / "sessions" / f"{kind}-0" / "result.json").read_text()
            )
            for name in ROLES
        }
    simulated, _ = simulate(wanted)
    metrics: Any = simulated.metrics
    assert [own[name]["metrics"]["own_score"] for name in metrics["clients"]] == metrics["score_together"]
    assert own["server"]["metrics"]["tested"]["server_score"] == metrics["tested"]["server_score"]
    assert all(each["ledger_verified"] for each in own.values())
