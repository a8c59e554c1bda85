"""LoRA between two daemons: both have the pretrained weights, and adapters and a new head are all that crosses."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

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
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.tensors import Layout

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
"""
THEIRS = """
[party.provider.weights]
theirs = "{provider}"
"""
SENDS = '\npolicy = {{ egress = ["contract", "checkpoint", "loss", "initial"] }}\n'
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


def script_of(learner: Path, provider: Path | None = None, *, sends: bool = False) -> str:
    text = demo_script("assisted_learning", 0).replace("rounds = 10", "rounds = 2")
    assert "[session.model]" in text
    head, _, rest = text.partition("[session.model]")
    rest = rest[rest.index("\n[") :]
    if sends:
        assert "\n[party.learner]\n" in rest
        rest = rest.replace("\n[party.learner]\n", f"\n[party.learner]{SENDS.format()}")
    return head + rest + FORM.format(learner=learner) + ("" if provider is None else THEIRS.format(provider=provider))


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


def test_weights_that_the_provider_lacks_are_sent_where_their_owner_lets_them(
    short_path: Path, typed: Any, tmp_path: Path
) -> None:
    script = parse_script(script_of(weights(short_path / "own.safetensors", 1), sends=True))
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, short_path))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        result, _ = drive(script, clients, SessionProgress(quiet=True))
    simulated, _ = simulate(script)
    size = Layout.of(load_file(short_path / "own.safetensors")).size
    assert result["digest"] == simulated.digest
    assert result["ledger_verified"]
    assert result["bytes_sent"]["initial"] == simulated.bytes_sent["initial"] == size
    with closing(SqlStore(store_url(short_path / "provider" / "state"), read_only=True)) as store:
        came = [each.fact for each in store.entries("demo-0") if each.fact.kind == "initial"]
    assert [(each.matter, each.direction, each.size) for each in came] == [("delivered", "received", size)]
    for party in nodes:
        assert typed.json("ledger", "verify", "--state", short_path / party / "state", cwd=tmp_path)["verified"]
    exported = typed("ledger", "export", "--state", short_path / "provider" / "state", cwd=tmp_path)
    (tmp_path / "theirs.json").write_text(exported.stdout)
    compared = typed("ledger", "compare", "theirs.json", "--state", short_path / "learner" / "state", cwd=tmp_path)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    # They went with the session.
    assert not [*short_path.glob("provider/state/blobs/**/initial/*")]


def test_weights_stay_where_their_owner_does_not_let_them_leave(short_path: Path) -> None:
    script = parse_script(script_of(weights(short_path / "own.safetensors", 1)))
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, short_path))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        with pytest.raises(
            UnknownWeights, match="provider does not have the weights.*policy.egress there names initial"
        ):
            drive(script, clients, SessionProgress(quiet=True))
    assert not [*short_path.glob("provider/state/blobs/**/initial/*")]
