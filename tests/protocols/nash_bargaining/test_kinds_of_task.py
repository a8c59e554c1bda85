"""Nash bargaining of every kind of task but games: the learner gets better, and tests, tables and ends go by the kind's score."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from comity.errors import InvalidValue, TaskMismatch
from comity.experiments import with_baselines
from comity.node.sessions.script import parse_script
from comity.protocol.registry import protocol
from comity.protocols.nash_bargaining.task import with_own_head
from comity.simulation.in_process import simulate
from comity.transport.bindings.in_process import InProcessChannel
from tests.company import company
from tests.samples_of_tasks import KINDS, script

ROLES = {"learner": "learner", "same": "provider", "other": "provider"}
TERMS: dict[str, object] = {"batch_size": 16, "local_steps": 2, "learning_rate": 0.3, "power_every": 2}
SCORES = {"multilabel": "average_precision", "regression": "rmse", "segmentation": "iou", "several": "loss"}
OTHERS = {"multilabel": "regression", "regression": "multilabel", "segmentation": "several", "several": "segmentation"}
"""What the second provider's samples are for: another kind of task, for which it has a head of its own."""


def session(folder: Path, kind: str, rounds: int = 6, **more: object) -> str:
    return script(folder, kind, "nash_bargaining", ROLES, TERMS | more, rounds, {"other": OTHERS[kind]})


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_of_each_kind_gets_better(kind: str, tmp_path: Path) -> None:
    events = []
    wanted = parse_script(session(tmp_path, kind))
    result, _ = simulate(wanted, events.append)
    score = SCORES[kind]
    rounds: Any = [each.fields for each in events if each.kind == "round-finished"]
    by_round = [each[f"test_{score}"] for each in rounds]
    first, last = by_round[0], by_round[-1]
    assert (last < first) if kind in {"regression", "several"} else (last > first)
    metrics: Any = with_baselines(wanted, result.metrics)
    assert metrics["score"] == score
    assert metrics["score_by_round"] == by_round
    assert metrics["score_bargained"] == last
    names = {"score_alone", "score_equal", "score_bargained"}
    assert {name: test[score] for name, test in metrics["tested"].items()} == {name: metrics[name] for name in names}
    assert metrics["providers_by_round"] == [["here", "here"]] * 6
    assert metrics["powers_by_round"][0] == [0.375, 0.375] != metrics["power"]
    view = protocol("nash_bargaining").presentation.of_task(kind)
    assert f"test_{score}" in {each.field for each in view.columns["learner"]} <= {*rounds[0]}
    assert {each.field for each in view.summary.columns} == names


def test_who_does_harm_loses_power_by_the_loss_of_the_learner_s_kind(tmp_path: Path) -> None:
    text = script(tmp_path, "regression", "nash_bargaining", ROLES, TERMS | {"power_every": 1}, 20)
    samples = dict(np.load(tmp_path / "other.npz"))
    np.savez(tmp_path / "other.npz", **(samples | {"y": -samples["y"]}))
    metrics: Any = simulate(parse_script(text))[0].metrics
    same, other = metrics["worth"]
    assert same > 0 > other
    assert metrics["powers"]["other"] < 0.5 * metrics["powers"]["same"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_for_another_kind_of_task_stays_at_home(kind: str, tmp_path: Path) -> None:
    found = company(session(tmp_path, kind, rounds=1))
    found.run(lambda _, other, role: InProcessChannel(other, role))
    (same,), (other,) = found.acceptors
    assert same.task.own == ()
    assert len(other.task.own) == 2
    (record,) = (each for each in other.journal.records() if each.kind == "finished")
    fields: Any = record.fields
    sent = other.task.gradient_layout.view(other.blobs.get(bytes.fromhex(fields["gradient"])).data)["gradient"]
    head = sum(other.task.initial_state[name].numel() for name in other.task.own)
    assert not sent[-head:].any()
    assert sent[:-head].any()


@pytest.mark.parametrize(
    ("kind", "terms", "rounds", "says"),
    [
        # RMSE and loss are reached from above, IoU from below.
        ("regression", {"target": 1e9}, 1, "RMSE .* reaches the target of 1e\\+09"),
        ("several", {"target": 1e9}, 1, "loss .* reaches the target of 1e\\+09"),
        ("several", {"target": 0.0, "target_metric": "mask.iou"}, 1, "mask: IoU .* reaches the target of 0"),
        ("segmentation", {"target": 0.0}, 1, "IoU .* reaches the target of 0"),
        ("regression", {"learning_rate": 1e-30, "stop_when_stalled": 2}, 3, "nothing was gained in 2 rounds in a row"),
    ],
)
def test_a_session_ends_by_the_score_of_its_kind(
    kind: str, terms: dict[str, object], rounds: int, says: str, tmp_path: Path
) -> None:
    events = []
    result, _ = simulate(parse_script(session(tmp_path, kind, 4, **terms)), events.append)
    assert result.rounds_finished == rounds
    (said,) = (str(each.fields["what"]) for each in events if each.kind == "ended-early")
    assert re.search(says, said)


def test_a_goal_that_is_not_reached_ends_nothing(tmp_path: Path) -> None:
    result, _ = simulate(parse_script(session(tmp_path, "regression", 3, target=0.0)))
    assert result.rounds_finished == 3


@pytest.mark.parametrize(
    "last", [nn.Linear(4, 3), nn.Conv1d(4, 3, 1), nn.Conv2d(4, 3, 3, padding=1, bias=False), nn.Conv3d(4, 3, 1)]
)
def test_another_head_is_a_layer_of_the_same_form(last: nn.Module) -> None:
    shared = nn.Sequential(nn.Identity(), last)
    model, own = with_own_head(shared, 3, 5, seed=1)
    assert own == tuple(f"1.{name}" for name, _ in last.named_parameters())
    inputs = torch.randn(2, 4, *([6] * (last.weight.ndim - 2)))  # type: ignore[operator]
    assert model(inputs).shape == (2, 5, *shared(inputs).shape[2:])
    again, _ = with_own_head(shared, 3, 5, seed=1)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(InvalidValue, match="a last layer that is fully connected or a convolution, with 4 outputs"):
        with_own_head(shared, 4, 5, seed=1)


def test_games_are_refused_by_name() -> None:
    text = """
[session]
protocol = "nash_bargaining"
acceptors = ["provider"]
rounds = 1
model = { name = "policy-mlp" }
[party.learner]
role = "learner"
data = { source = "gymnasium:CartPole-v1" }
[party.provider]
role = "provider"
data = { source = "gymnasium:CartPole-v1" }
"""
    with pytest.raises(TaskMismatch, match="nash_bargaining is not for such a task.*received reinforcement"):
        simulate(parse_script(text))
