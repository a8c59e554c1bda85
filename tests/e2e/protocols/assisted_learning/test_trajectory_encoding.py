"""Checkpoints that cross as what changed, between two daemons: the bits of a session are the same, its bytes fewer."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.experiments import demo_script
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate
from comity.simulation.processes import running


def test_a_session_of_deltas_ends_in_the_bits_of_a_dense_one(short_path: Path) -> None:
    script = parse_script(demo_script("assisted_learning", 0).replace("rounds = 10", "rounds = 2"))
    dense, _ = simulate(script)
    script.session.terms["trajectory_encoding"] = "delta"
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, short_path))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        result, _ = drive(script, clients, SessionProgress(quiet=True))
    simulated, _ = simulate(script)
    assert result["digest"] == simulated.digest == dense.digest
    assert result["ledger_verified"]
    for direction in ("bytes_sent", "bytes_received"):
        crossed = result[direction]
        assert crossed == getattr(simulated, direction)
        assert crossed["checkpoint"] < 0.9 * getattr(dense, direction)["checkpoint"]
