"""The demo: two daemons as processes, and the same session in one process."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from comity.experiments import demo_script, with_baselines
from comity.models.weights import digest_of_weights, read_weights
from comity.node.sessions.script import Script
from comity.session.outcome import Outcome

SEEDS = range(10)
SHARED_FIELDS = {
    "protocol": str,
    "session": str,
    "seed": int,
    "rounds": int,
    "digest": str,
    "metrics": dict,
    "wall_s": float,
    "bytes_sent": dict,
    "bytes_received": dict,
    "ledger_verified": bool,
    "preset": str,
    "rows_held": int,
    "rows_judged": int,
    "compared": type(None),
    "cost": type(None),
    "rounds_finished": int,
    "processes": list,
}
ACCURACIES = ("learner_alone", "provider_alone", "assisted", "pooled")

Demo = tuple[Path, dict[str, Any]]


def assert_monotone_global_loss(losses: list[float]) -> None:
    """Proposition 1: no round makes the global loss worse. Exactly: there is no tolerance."""
    assert all(after <= before for before, after in pairwise(losses)), losses


def test_the_demo_reports_what_every_session_reports(the_demo: Demo) -> None:
    _, result = the_demo
    assert {name: type(value) for name, value in result.items()} == SHARED_FIELDS
    assert (result["protocol"], result["session"], result["seed"]) == ("assisted_learning", "demo-0", 0)
    assert result["rounds"] == 10
    assert len(bytes.fromhex(result["digest"])) == 32
    assert result["ledger_verified"] is True
    assert 0 < result["wall_s"] < 60
    for direction in ("bytes_sent", "bytes_received"):
        assert set(result[direction]) == {"contract", "checkpoint", "loss"}
        assert all(type(count) is int and count > 0 for count in result[direction].values())


def test_the_demo_helps_the_learner(the_demo: Demo) -> None:
    metrics = the_demo[1]["metrics"]
    assert all(0 <= metrics[name] <= 1 for name in ACCURACIES)
    assert len(metrics["assisted_by_round"]) == len(metrics["global_loss_by_round"]) == 10
    assert all(0 <= accuracy <= 1 for accuracy in metrics["assisted_by_round"])
    assert metrics["assisted"] in metrics["assisted_by_round"]
    assert_monotone_global_loss(metrics["global_loss_by_round"])
    assert metrics["assisted"] >= metrics["learner_alone"] + 0.05


def test_the_demo_leaves_no_process_and_no_temporary_file(the_demo: Demo) -> None:
    folder, result = the_demo
    assert len(set(result["processes"])) == 2
    assert not any(psutil.pid_exists(process) for process in result["processes"])
    # torch makes the folder of its compiler's cache as soon as an optimiser steps, and never removes it.
    assert not [each for each in (folder / "tmp").iterdir() if not each.name.startswith("torchinductor_")]
    assert not list((folder / "kept").rglob("*.sock"))


def test_the_workdir_keeps_configurations_logs_and_the_model(the_demo: Demo) -> None:
    folder, result = the_demo
    for party in ("learner", "provider"):
        assert f'party = "{party}"' in (folder / "kept" / party / "node.toml").read_text()
        assert '"event": "node-ready"' in (folder / "kept" / party / "log").read_text()
    model = folder / "kept" / "learner" / "state" / "sessions" / "demo-0" / "model.safetensors"
    assert digest_of_weights(read_weights(model)) == result["digest"]
    assert {name: tuple(tensor.shape) for name, tensor in load_file(model).items()} == {
        "1.weight": (64, 64),
        "1.bias": (64,),
        "3.weight": (10, 64),
        "3.bias": (10,),
    }
    # Whoever may read the folder could else speak for the party.
    assert all((key.stat().st_mode & 0o077) == 0 for key in (folder / "kept").rglob("key.pem"))


def test_its_sessions_are_read_when_no_node_runs_any_more(the_demo: Demo, typed: Any) -> None:
    folder, result = the_demo
    for party in ("learner", "provider"):
        (session,) = typed.json("sessions", "--node", folder / "kept" / party, cwd=folder)["sessions"]
        assert (session["session"], session["state"]) == ("demo-0", "finished")
        shown = typed.json("show", "--node", folder / "kept" / party, cwd=folder)
        assert shown["rounds_finished"] == result["rounds"]
    assert shown["bytes_received"] == result["bytes_sent"]


def test_the_simulation_of_the_demo_is_the_demo(the_demo: Demo, typed: Any, tmp_path: Path) -> None:
    _, result = the_demo
    printed = typed("demo", "--print-script", "--seed", 0, cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    (tmp_path / "session.toml").write_text(printed.stdout)
    alone = typed.json("simulate", "session.toml", cwd=tmp_path)
    assert alone.pop("processes") == []
    differing = {"wall_s", "processes"}
    assert {k: v for k, v in alone.items() if k not in differing} == {
        k: v for k, v in result.items() if k not in differing
    }
    metrics = result["metrics"]
    both = zip(metrics["provider_picks"], metrics["learner_picks"], strict=True)
    assert sum(provider > 0 and learner > 0 for provider, learner in both) >= 3


@pytest.fixture(scope="module")
def several(
    once: Callable[..., tuple[Path, Any]], simulated: Callable[[str], tuple[Script, Outcome]]
) -> list[dict[str, Any]]:
    """The metrics of several seeds, the demo's baselines included."""

    def run(folder: Path) -> list[dict[str, Any]]:
        del folder
        runs = []
        for seed in SEEDS:
            script, outcome = simulated(demo_script("assisted_learning", seed))
            runs.append(with_baselines(script, outcome.metrics))
        return runs

    metrics: list[dict[str, Any]] = once("several", run)[1]
    return metrics


@pytest.mark.slow
def test_learners_are_helped(several: list[dict[str, Any]]) -> None:
    assert len(several) == len(SEEDS)
    for metrics in several:
        assert metrics["assisted"] >= metrics["learner_alone"] + 0.05
        assert_monotone_global_loss(metrics["global_loss_by_round"])
    assert mean(each["assisted"] for each in several) >= mean(each["provider_alone"] for each in several) - 0.01
