"""Differential privacy between two daemons: the same bits and the same ε as in a simulation, and a budget that is kept."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.errors import PolicyRefusal
from comity.experiments import demo_script
from comity.node.control_client import ControlClient
from comity.node.sessions.budget import spent
from comity.node.sessions.script import Script, parse_script
from comity.simulation.in_process import simulate
from comity.simulation.processes import running
from comity.store.places import store_url
from comity.store.sql_store import SqlStore

PARTIES = ("learner", "provider")
BUDGET = 4.0


def private(id: str) -> Script:
    text = (
        demo_script("assisted_learning", 0)
        .replace("rounds = 10", "rounds = 1")
        .replace('id = "demo-0"', f'id = "{id}"')
    )
    terms = '[session.terms]\nprivacy = { scope = "total", epsilon = 3.0 }\n'
    return parse_script(
        text.replace("[session.terms]\n", terms) + f"\n[party.provider.policy]\nmax_epsilon = {BUDGET}\n"
    )


@pytest.mark.slow
def test_a_private_session_of_daemons_is_its_simulation_and_is_paid_once(short_path: Path) -> None:
    script = private("first")
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, short_path))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        progress = SessionProgress(quiet=True)
        result, _ = drive(script, clients, progress)
        # The provider's samples have no ε left for another.
        with pytest.raises(PolicyRefusal, match="max_epsilon"):
            drive(private("second"), clients, progress)
    simulated, _ = simulate(script)
    assert result["digest"] == simulated.digest
    assert result["metrics"]["privacy"] == simulated.metrics["privacy"]
    for party in PARTIES:
        with closing(SqlStore(store_url(short_path / party / "state"), read_only=True)) as store:
            assert spent(store) == result["metrics"]["privacy"][party]["epsilon"] <= 3.0
