"""LoRA between two daemons: both have the pretrained weights, and adapters and a new head are all that crosses."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.errors import UnknownWeights
from comity.experiments import demo_script
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script
from comity.randomness import seeded
from comity.simulation.in_process import simulate
from comity.simulation.processes import running

FORM = """
[session.model]
name = "mlp"
options = {{ hidden = 256, hidden_layers = 2 }}
initial = "learned"
fresh = ["5.*"]
trainable = ["5.*"]
lora = {{ rank = 2, alpha = 4 }}
[party.learner.weights]
learned = "{learner}"
[party.provider.weights]
theirs = "{provider}"
"""
FEATURES, HIDDEN = 64, 256


def weights(path: Path, seed: int) -> Path:
    with seeded(seed):
        layers = [
            torch.nn.Flatten(),
            torch.nn.Linear(FEATURES, HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Linear(HIDDEN, HIDDEN),
            torch.nn.ReLU(),
            # Of another task, with other classes.
            torch.nn.Linear(HIDDEN, 3),
        ]
        save_file(torch.nn.Sequential(*layers).state_dict(), path)
    return path


def script_of(learner: Path, provider: Path) -> str:
    text = demo_script("assisted_learning", 0).replace("rounds = 10", "rounds = 2")
    assert "[session.model]" in text
    head, _, rest = text.partition("[session.model]")
    rest = rest[rest.index("\n[") :]
    return head + rest + FORM.format(learner=learner, provider=provider)


def test_adapters_cross_between_daemons_and_the_whole_model_is_kept_with_them(short_path: Path) -> None:
    own, theirs = weights(short_path / "own.safetensors", 1), weights(short_path / "theirs.safetensors", 1)
    script = parse_script(script_of(own, theirs))
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, short_path))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        result, _ = drive(script, clients, SessionProgress(quiet=True))
    simulated, _ = simulate(script)
    assert result["digest"] == simulated.digest
    folder = short_path / "learner" / "state" / "sessions" / "demo-0"
    crossed = load_file(folder / "model.safetensors")
    assert {name for name in crossed if "lora_" not in name} == {"5.weight", "5.bias"}
    whole, began = load_file(folder / "whole-model.safetensors"), load_file(own)
    assert whole.keys() == began.keys()
    assert whole["5.weight"].shape == (10, HIDDEN)
    scale = 4 / 2
    added = crossed["3.lora_B.default.weight"] @ crossed["3.lora_A.default.weight"] * scale
    assert torch.allclose(whole["3.weight"], began["3.weight"] + added, atol=1e-6)
    assert torch.equal(whole["3.bias"], began["3.bias"])
    sent = result["bytes_sent"]
    # A checkpoint of all of it is three times as many.
    assert sent["checkpoint"] > 0
    of_adapters = sum(each.numel() for each in crossed.values())
    assert of_adapters < 0.1 * sum(each.numel() for each in whole.values())


def test_other_weights_at_the_other_party_are_refused_before_anything_is_trained(short_path: Path) -> None:
    own, theirs = weights(short_path / "own.safetensors", 1), weights(short_path / "theirs.safetensors", 2)
    with pytest.raises(UnknownWeights, match="provider does not have the weights"):
        simulate(parse_script(script_of(own, theirs)))
    assert "peft" in sys.modules
