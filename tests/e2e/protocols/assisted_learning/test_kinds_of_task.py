"""Tasks beside classification between a learner's and a provider's daemon: the bits of their simulation, and the same tests."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate
from comity.simulation.processes import running
from tests.samples_of_tasks import script

ROLES = {"learner": "learner", "provider": "provider"}
TERMS: dict[str, object] = {"iterations": 20, "sampling_period": 5, "learning_rate": 0.02, "batch_size": 16}


@pytest.mark.parametrize(
    "kind", ["multilabel", "regression", "segmentation", pytest.param("several", marks=pytest.mark.slow)]
)
def test_daemons_end_in_the_bits_of_the_simulation(kind: str, short_path: Path) -> None:
    wanted = parse_script(script(short_path, kind, "assisted_learning", ROLES, TERMS, 1))
    with ExitStack() as stack:
        nodes = stack.enter_context(running(wanted, short_path / "nodes", threads=1))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        result, _ = drive(wanted, clients, SessionProgress(quiet=True))
    simulated, _ = simulate(wanted)
    assert result["digest"] == simulated.digest
    assert result["metrics"]["tested"] == simulated.metrics["tested"]
    assert result["ledger_verified"]
