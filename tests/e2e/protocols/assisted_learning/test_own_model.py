"""AssistKD between two daemons: own models stay, and the session ends in the bits of its simulation."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from safetensors.torch import load_file

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.experiments import demo_script
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate
from comity.simulation.processes import running

OWN = """
[party.{party}.protocols.assisted-learning.own_model]
name = "mlp"
options = {{ hidden = {hidden} }}
learning_rate = 0.003
to_own_epochs = 20
"""


def test_own_models_stay_and_the_contracts_model_crosses(short_path: Path) -> None:
    text = demo_script("assisted_learning", 0).replace("rounds = 10", "rounds = 1")
    script = parse_script(text + OWN.format(party="learner", hidden=32) + OWN.format(party="provider", hidden=48))
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, short_path))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        result, _ = drive(script, clients, SessionProgress(quiet=True))
    simulated, _ = simulate(script)
    assert result["digest"] == simulated.digest
    folder = short_path / "learner" / "state" / "sessions" / "demo-0"
    assert load_file(folder / "model.safetensors")["1.weight"].shape == (64, 64)
    assert load_file(folder / "own-model.safetensors")["1.weight"].shape == (32, 64)
