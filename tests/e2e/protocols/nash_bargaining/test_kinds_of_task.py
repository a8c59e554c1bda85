"""Tasks beside classification between daemons: the bits of their simulation, and the same tests."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from comity.cli.progress import SessionProgress
from comity.cli.run import drive, follow
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate
from comity.simulation.processes import running
from tests.samples_of_tasks import script

ROLES = {"learner": "learner", "same": "provider", "other": "provider"}
TERMS: dict[str, object] = {"batch_size": 16, "local_steps": 2, "learning_rate": 0.3, "power_every": 1}


@pytest.mark.slow
def test_daemons_end_in_the_bits_of_the_simulation(short_path: Path) -> None:
    """A mask and a depth of each picture at the learner and one provider, masks alone at the other."""
    text = script(short_path, "several", "nash_bargaining", ROLES, TERMS, 2, {"other": "segmentation"})
    wanted = parse_script(text)
    with ExitStack() as stack:
        nodes = stack.enter_context(running(wanted, short_path / "nodes", threads=1))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        result, _ = drive(wanted, clients, SessionProgress(quiet=True))
        for name in ("same", "other"):
            # Whoever fails raises what it failed with.
            follow(clients[name], "several-0", SessionProgress(quiet=True))
    simulated, _ = simulate(wanted)
    assert result["digest"] == simulated.digest
    found = result["metrics"]
    assert found["score"] == "loss"
    assert found["score_bargained"] == simulated.metrics["score_bargained"] is not None
    assert found["tested"] == simulated.metrics["tested"]
    assert found["powers_by_round"] == simulated.metrics["powers_by_round"]
    assert result["ledger_verified"]
