"""Assisted learning of every kind of task: the learner gets better, the global loss never rises, and tests say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import comity
from comity.contract import Preprocessing
from comity.data import Splits
from comity.data.targets import labelled
from comity.errors import InvalidValue, TaskMismatch
from comity.node.sessions.script import parse_script
from comity.protocols.assisted_learning import Loss, Screening
from comity.simulation.in_process import simulate
from comity.tasks import kind_for, objective_of
from tests.samples_of_tasks import KINDS, MODELS, archive, samples, script

ROLES = {"learner": "learner", "provider": "provider"}
TERMS: dict[str, object] = {"iterations": 60, "sampling_period": 5, "learning_rate": 0.02, "batch_size": 16}
SCORES = {"multilabel": "average_precision", "regression": "rmse", "segmentation": "iou", "several": "loss"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_of_each_kind_gets_better(kind: str, tmp_path: Path) -> None:
    events = []
    text = script(tmp_path, kind, "assisted_learning", ROLES, TERMS, 3)
    result, _ = simulate(parse_script(text), events.append)
    metrics: Any = result.metrics
    assert metrics["score"] == SCORES[kind]
    losses = metrics["global_loss_by_round"]
    assert losses == sorted(losses, reverse=True)
    tested = metrics["tested"]["assisted"]
    assert tested[SCORES[kind]] == metrics["assisted"] == metrics["assisted_by_round"][-1]
    assert {"multilabel": 0.85, "segmentation": 0.8}.get(kind, 0) < metrics["assisted"]
    assert metrics["assisted"] < {"regression": 0.6, "several": 0.8}.get(kind, 1.01)
    (started,) = [each for each in events if each.kind == "session-started"]
    fields: Any = started.fields
    last: Any = [each for each in events if each.kind == "round-finished"][-1].fields
    shown = {each["field"] for each in fields["columns"]}
    assert f"test_{SCORES[kind]}" in shown & last.keys()
    detail = {"regression": "test_rmse_by_target", "several": "test_loss"}.get(kind, "test_recall")
    assert detail in shown & last.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_python_brings_targets_of_each_kind(kind: str) -> None:
    model: Any = MODELS[kind]
    result = comity.simulate(
        "assisted_learning",
        [
            comity.Party(
                model=model["name"], options=model["options"], data=samples(kind, 48, 0), test=samples(kind, 40, 99)
            ),
            comity.Party(data=samples(kind, 48, 1)),
        ],
        TERMS,
        rounds=1,
        baselines=True,
    )
    assert {"assisted", "learner_alone", "provider_alone", "pooled"} == set(result.tested)
    assert result.model(samples(kind, 2, 0)[0]).shape[0] == 2
    assert "by class" in repr(result) or "by target" in repr(result)


def test_weights_and_smoothing_are_agreed_and_change_what_is_learned() -> None:
    inputs, labels = samples("multilabel", 60, 0)
    assert not isinstance(labels, dict)
    classes = labels[:, 0].long()
    seldom = [comity.Party(model="mlp", data=(inputs[:50], classes[:50]), test=(inputs[50:], classes[50:]))]
    seldom.append(comity.Party(data=(inputs, classes)))
    digests = set()
    for task in (None, {"weights": [1, 8]}, {"options": {"smoothing": 0.2}}):
        digests.add(comity.simulate("assisted_learning", seldom, TERMS, rounds=1, task=task).digest)
    assert len(digests) == 3
    with pytest.raises(comity.ComityError, match="one for each"):
        comity.simulate("assisted_learning", seldom, TERMS, rounds=1, task={"weights": [1, 2, 3]})


def test_parties_of_different_kinds_do_not_begin(tmp_path: Path) -> None:
    text = script(tmp_path, "regression", "assisted_learning", ROLES, TERMS, 1)
    archive(tmp_path / "provider.npz", "multilabel", 48, 1)
    with pytest.raises(TaskMismatch, match="provider's data are for another task"):
        simulate(parse_script(text))


OWN_MODEL = """
[party.{party}.protocols.assisted-learning.own_model]
name = "{model}"
options = {{ {size} }}
learning_rate = 0.02
to_shared = 20
to_own_epochs = 30
"""


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_own_models_of_labels_and_numbers_learn_from_the_shared_one(kind: str, tmp_path: Path) -> None:
    text = script(tmp_path, kind, "assisted_learning", ROLES, TERMS, 3)
    for party, hidden in (("learner", 24), ("provider", 12)):
        text += OWN_MODEL.format(party=party, model="mlp", size=f"hidden = {hidden}")
    result, outcome = simulate(parse_script(text))
    assert outcome.own is not None
    metrics: Any = result.metrics
    losses = metrics["global_loss_by_round"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    # The targets of regression deviate by 1 from their mean, as do labels of chance by .5.
    assert metrics["own_model"] > 0.85 if kind == "multilabel" else metrics["own_model"] < 0.6
    assert metrics["own_model"] == metrics["own_model_tested"][SCORES[kind]]


@pytest.mark.parametrize("kind", ["segmentation", "several"])
def test_own_models_of_pixels_and_of_several_heads_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    text = script(tmp_path, kind, "assisted_learning", ROLES, TERMS, 1)
    text += OWN_MODEL.format(party="learner", model="fcn", size="width = 4")
    with pytest.raises(TaskMismatch, match=f"expected classification, multilabel or regression, received {kind}"):
        simulate(parse_script(text))


@pytest.mark.parametrize("kind", ["classification", *KINDS])
def test_screening_finds_what_a_full_evaluation_finds(kind: str) -> None:
    inputs, targets = samples("segmentation" if kind == "classification" else kind, 12, 0)
    if kind == "classification":
        targets = torch.arange(12) % 2
    data = labelled(inputs, targets, 1.0, "data")
    held = Splits(data)
    found = kind_for(held)
    assert found.name == kind
    objective = objective_of(found.of(held, Preprocessing()))
    pixels = (6, 6) if kind in {"segmentation", "several"} else ()
    draws = torch.Generator().manual_seed(3)
    models = [scale * torch.randn(12, data.outputs, *pixels, generator=draws) for scale in (3.0, 1.0, 0.0, 2.0, 9.0)]
    losses = torch.stack([objective.loss(each, data.targets, "none").double() for each in models])
    others = [5.0, 4.0, 3.0, 6.0, 1.0]
    totals = [other + float(each.sum()) for other, each in zip(others, losses, strict=True)]
    screening = Screening(lambda index, at: losses[index, at], losses[0], block=3, objective="sum")
    for index, other in enumerate(others):
        screening.add(index, Loss(other, 12))
    chosen = screening.select()
    assert chosen.index == totals.index(min(totals))
    assert chosen.total == pytest.approx(min(totals))
    assert chosen.work < 1


def test_parties_may_weigh_heads_by_a_method_of_their_own(tmp_path: Path) -> None:
    text = script(tmp_path, "several", "assisted_learning", ROLES, TERMS, 3)
    weighing = """
[party.learner.training]
precision = "bfloat16"
weighting = { method = "auxinash", main = "mask", every = 5, norm = 0.5, options = { main_power = 0.4 } }
"""
    plain, weighed = (simulate(parse_script(each))[0] for each in (text, text + weighing))
    metrics: Any = weighed.metrics
    assert weighed.digest != plain.digest
    losses = metrics["global_loss_by_round"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(InvalidValue, match="did you mean auxinash"):
        simulate(parse_script(text + weighing.replace("auxinash", "auxinahs")))
