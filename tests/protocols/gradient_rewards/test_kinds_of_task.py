"""Gradient rewards of every kind of task but games: clients get better together, and tests say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comity.errors import TaskMismatch
from comity.experiments import with_baselines
from comity.node.sessions.script import parse_script
from comity.protocols.gradient_rewards.report import merged
from comity.simulation.in_process import simulate
from tests.samples_of_tasks import KINDS, script

ROLES = {**{f"client-{number}": "client" for number in (1, 2, 3)}, "server": "server"}
TERMS: dict[str, object] = {"clients": 3, "learning_rate": 0.2, "batch_size": 16, "length": 1.0, "epochs": 2}
SCORES = {"multilabel": "average_precision", "regression": "rmse", "segmentation": "iou", "several": "loss"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_of_each_kind_gets_better(kind: str, tmp_path: Path) -> None:
    events = []
    wanted = parse_script(script(tmp_path, kind, "gradient_rewards", ROLES, TERMS, 6))
    result, _ = simulate(wanted, events.append)
    rounds: Any = [each.fields for each in events if each.kind == "round-finished"]
    field = f"test_{SCORES[kind]}"
    first, last = rounds[0][field], rounds[-1][field]
    assert (last < first) == (kind in {"regression", "several"})
    metrics: Any = with_baselines(wanted, result.metrics)
    assert metrics["score"] == SCORES[kind]
    assert len(metrics["tested_together"]) == len(metrics["tested_alone"]) == 3
    assert {"server_score", "together_mean", "alone_mean"} == set(metrics["tested"])
    assert metrics["tested"]["together_mean"][SCORES[kind]] == pytest.approx(metrics["together_mean"])


def test_means_are_over_all_clients_that_have_a_number() -> None:
    """A client whose test has no sample of a class says nothing of it; others do."""
    tests = [
        {"accuracy": 0.5, "recall": {"0": 1.0}},
        {"accuracy": 0.7, "recall": {"0": 0.5, "1": 0.2}, "auroc": 0.9},
        {},
    ]
    clients = {f"client-{at}": {"own_score": 0.5, "tested": {"own_score": each}} for at, each in enumerate(tests)}
    metrics: Any = merged({"clients": [*clients]}, clients)
    mean = metrics["tested"]["together_mean"]
    assert mean == {"accuracy": pytest.approx(0.6), "recall": {"0": 0.75, "1": 0.2}, "auroc": 0.9}


def test_games_are_refused_by_name() -> None:
    text = """
[session]
protocol = "gradient_rewards"
acceptors = ["server"]
rounds = 1
model = { name = "policy-mlp" }
[session.terms]
clients = 3
[party.server]
role = "server"
data = { source = "gymnasium:CartPole-v1" }
"""
    text += "".join(
        f'[party.client-{i}]\nrole = "client"\ndata = {{ source = "gymnasium:CartPole-v1" }}\n' for i in (1, 2, 3)
    )
    with pytest.raises(TaskMismatch, match="gradient_rewards is not for such a task.*received reinforcement"):
        simulate(parse_script(text))
