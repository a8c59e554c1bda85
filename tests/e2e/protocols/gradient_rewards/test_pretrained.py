"""LoRA between clients and a server: all have the pretrained weights, and adapters and a new head are all that crosses."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import tomlkit
import torch
from safetensors.torch import load_file, save_file

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script
from comity.randomness import seeded
from comity.simulation.in_process import simulate
from comity.simulation.processes import running
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from tests.beginnings import begun, with_files
from tests.cases import plain

FEATURES, HIDDEN, ROUNDS = 64, 256, 2
FORM = {
    "initial": "learned",
    "fresh": ["5.*"],
    "trainable": ["5.*"],
    "lora": {"rank": 2, "alpha": 4},
}


def weights(path: Path) -> Path:
    with seeded(1):
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


def script_of(learned: Path, form: dict[str, Any]) -> str:
    mlp = {"name": "mlp", "options": {"hidden": HIDDEN, "hidden_layers": 2}}
    session = {
        "protocol": "gradient_rewards",
        "id": "tuning-0",
        "acceptors": ["server"],
        "rounds": ROUNDS,
        "model": {**mlp, **form},
        "terms": {"clients": 3, "learning_rate": 0.2, "batch_size": 16, "epochs": 1},
    }
    shared = {"secret": "tuning", "privacy": {"preset": "public"}, "weights": {"learned": str(learned)}}
    parties: dict[str, Any] = {
        f"client-{place}": {
            **shared,
            "role": "client",
            "data": {
                "source": "digits",
                "per_class": 30,
                "partition": {"name": "uniform", "parties": 3, "index": place},
            },
        }
        for place in range(3)
    }
    parties["server"] = {**shared, "role": "server", "data": {"source": "digits"}}
    return tomlkit.dumps({"session": session, "party": parties, "simulation": {"threads": 1}})


@pytest.mark.slow
def test_adapters_cross_between_clients_and_a_server(short_path: Path) -> None:
    learned = weights(short_path / "learned.safetensors")
    script = parse_script(script_of(learned, FORM))
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, short_path / "nodes", threads=1))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        drive(script, clients, SessionProgress(quiet=True))
    simulated, _ = simulate(script)
    metrics: Any = simulated.metrics
    plain, _ = simulate(parse_script(script_of(learned, {})))
    began = load_file(learned)
    for name, score in zip(metrics["clients"], metrics["score_together"], strict=True):
        folder = short_path / "nodes" / name / "state" / "sessions" / "tuning-0"
        result = json.loads((folder / "result.json").read_text())
        assert result["ledger_verified"]
        assert result["metrics"]["own_score"] == score
        crossed, whole = load_file(folder / "model.safetensors"), load_file(folder / "whole-model.safetensors")
        assert {each for each in crossed if "lora_" not in each} == {"5.weight", "5.bias"}
        assert whole.keys() == began.keys()
        added = crossed["3.lora_B.default.weight"] @ crossed["3.lora_A.default.weight"] * (4 / 2)
        assert torch.allclose(whole["3.weight"], began["3.weight"] + added, atol=1e-6)
        assert torch.equal(whole["3.bias"], began["3.bias"])
    assert simulated.bytes_received["update"] < 0.2 * plain.bytes_received["update"]


@pytest.mark.slow
def test_clients_that_lack_the_weights_get_them_from_the_server(short_path: Path) -> None:
    script, files, size = begun(plain("gradient_rewards").script, short_path)
    script = with_files(script, files, "server", sends=True)
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, short_path / "nodes", threads=1))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        result, _ = drive(script, clients, SessionProgress(quiet=True))
    simulated, _ = simulate(script)
    assert result["digest"] == simulated.digest
    assert result["bytes_sent"]["initial"] == simulated.bytes_sent["initial"] == 3 * size
    for name in nodes:
        with closing(SqlStore(store_url(short_path / "nodes" / name / "state"), read_only=True)) as store:
            facts = [each.fact for each in store.entries("small") if each.fact.kind == "initial"]
        delivered = [(each.direction, each.size) for each in facts if each.matter == "delivered"]
        assert delivered == ([("sent", size)] * 3 if name == "server" else [("received", size)])
