"""What each kind of task of samples trains and tests: losses, metrics, predictions, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torch import Tensor
from torch.nn import functional

from comity.contract import HeadSpec, InputSpec, Preprocessing, TaskSpec
from comity.data import Dataset, Splits
from comity.data.targets import labelled
from comity.errors import InvalidValue, TaskMismatch
from comity.tasks import kind_for, kind_names, objective_of, regression, require_task, require_usable, task_kind
from comity.tasks.reinforcement import reinforcement
from comity.tasks.scores import METRICS, detail_of, score_of

SHAPE = (1, 4, 4)
COUNT = 12
TRAINED = ("classification", "multilabel", "regression", "segmentation", "several")
"""The kinds whose models are trained by losses of samples."""


def targets(kind: str, count: int = COUNT, seed: int = 0) -> Any:
    draws = torch.Generator().manual_seed(seed)
    match kind:
        case "classification":
            return torch.arange(count) % 3
        case "multilabel":
            return torch.rand(count, 3, generator=draws) < 0.4
        case "regression":
            return torch.randn(count, 2, generator=draws)
        case "segmentation":
            return torch.randint(3, (count, 4, 4), generator=draws)
        case _:
            return {"depth": torch.randn(count, 1, 4, 4, generator=draws), "mask": targets("segmentation", count, seed)}


def splits(kind: str, count: int = COUNT, **changes: Any) -> Splits:
    inputs = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))
    return Splits(
        labelled(inputs, targets(kind, count) | changes if changes else targets(kind, count), 1.0, "data"), None
    )


def task(kind: str, **options: Any) -> TaskSpec:
    data = splits(kind)
    found = kind_for(data).of(data, Preprocessing())
    return found.model_copy(update={"options": {**found.options, **options}})


def outputs(kind: str, count: int = COUNT, scale: float = 1.0, seed: int = 2) -> Tensor:
    per_pixel = {"segmentation": (3, 4, 4), "several": (4, 4, 4), "regression": (2,)}
    shape = (count, *per_pixel.get(kind, (3,)))
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def perfect(kind: str) -> Tensor:
    """Outputs that say the truth, and are sure of it."""
    truth = splits(kind).train.targets
    match kind:
        case "classification":
            return 50 * functional.one_hot(truth["class"], 3).float()
        case "multilabel":
            return torch.where(truth["label"], 50.0, -50.0)
        case "regression":
            return truth["target"]
        case "segmentation":
            return 50 * functional.one_hot(truth["mask"].long(), 3).movedim(-1, 1).float()
        case _:
            mask = 50 * functional.one_hot(truth["mask"].long(), 3).movedim(-1, 1).float()
            return torch.cat([truth["depth"], mask], dim=1)


@pytest.mark.parametrize("kind", TRAINED)
def test_data_say_which_task_they_are_for(kind: str) -> None:
    data = splits(kind)
    found = kind_for(data)
    assert found.name == data.train.task == kind
    spec = found.of(data, Preprocessing())
    assert require_usable(spec).outputs(spec) == data.train.outputs
    require_task("clinic", data, spec)
    for other in TRAINED:
        if other != kind:
            with pytest.raises(TaskMismatch, match="clinic's data are for another task"):
                require_task("clinic", splits(other), spec)


@pytest.mark.parametrize("kind", TRAINED)
@settings(max_examples=25)
@given(scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]), seed=st.integers(0, 1000))
def test_every_samples_loss_is_at_or_above_zero_and_follows_from_that_sample_alone(
    kind: str, scale: float, seed: int
) -> None:
    objective, data = objective_of(task(kind)), splits(kind).train
    made = outputs(kind, scale=scale, seed=seed)
    every = objective.loss(made, data.targets, "none")
    assert every.shape == (COUNT,)
    assert bool((every >= 0).all())
    some = torch.tensor([7, 0, 3])
    torch.testing.assert_close(every[some], objective.loss(made[some], data.targets_of(some), "none"))
    torch.testing.assert_close(objective.loss(made, data.targets, "mean"), every.mean())


@pytest.mark.parametrize("kind", TRAINED)
def test_a_perfect_model_has_perfect_metrics(kind: str) -> None:
    objective, data = objective_of(task(kind)), splits(kind).train
    tally = objective.tally()
    for block in torch.arange(COUNT).split(5):
        tally.add(perfect(kind)[block], data.targets_of(block))
    found: Any = tally.results()
    best = {name: 0.0 if METRICS[name.rpartition(".")[2]].falls else 1.0 for name in found}
    assert found
    for name, value in found.items():
        for one in value.values() if isinstance(value, dict) else [value]:
            assert one == pytest.approx(best[name], abs=1e-6), name
    if kind != "several":
        assert score_of(kind).name in found
        detail = detail_of(kind)
        assert detail is not None
        assert detail.name in found


def test_metrics_of_classes_count_each_class_alike() -> None:
    labels = torch.tensor([0] * 8 + [1] * 2)
    logits = torch.zeros(10, 3)
    logits[:, 0] = 1.0
    logits[9] = torch.tensor([0.0, 2.0, 0.0])
    tally = objective_of(task("classification")).tally()
    tally.add(logits, {"class": labels})
    found = tally.results()
    assert found["accuracy"] == pytest.approx(0.9)
    assert found["recall"] == {"0": 1.0, "1": 0.5, "2": None}
    assert found["balanced_accuracy"] == pytest.approx(0.75)


def test_metrics_agree_with_scikit_learn() -> None:
    draws = torch.Generator().manual_seed(3)
    labels, logits = torch.randint(3, (200,), generator=draws), torch.randn(200, 3, generator=draws)
    tally = objective_of(task("classification")).tally()
    tally.add(logits, {"class": labels})
    found: Any = tally.results()
    chances = logits.softmax(dim=1).double()
    chances = chances / chances.sum(dim=1, keepdim=True)
    truth = functional.one_hot(labels, 3)
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(labels, chances, multi_class="ovr"), abs=1e-6)
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(truth, chances), abs=1e-6)
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, logits.argmax(1), average="macro"), abs=1e-6)
    numbers, wanted = torch.randn(50, 2, generator=draws), torch.randn(50, 2, generator=draws)
    tally = objective_of(task("regression")).tally()
    tally.add(numbers, {"target": wanted})
    found = tally.results()
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(wanted, numbers))
    assert found["rmse"] == pytest.approx(math.sqrt(metrics.mean_squared_error(wanted, numbers)))
    assert found["r2"] == pytest.approx(metrics.r2_score(wanted, numbers))


def test_weights_multiply_the_losses_of_their_classes() -> None:
    plain = task("classification")
    weighed = plain.model_copy(update={"heads": (HeadSpec(name="class", size=3, weights=(1.0, 5.0, 1.0)),)})
    data, made = splits("classification").train, outputs("classification")
    one, other = (objective_of(each).loss(made, data.targets, "none") for each in (plain, weighed))
    torch.testing.assert_close(other, torch.where(data.labels == 1, 5 * one, one))
    torch.testing.assert_close(objective_of(weighed).loss(made, data.targets, "mean"), other.mean())


def test_smoothing_is_torchs() -> None:
    data, made = splits("classification").train, outputs("classification")
    found = objective_of(task("classification", smoothing=0.1)).loss(made, data.targets, "none")
    torch.testing.assert_close(
        found, functional.cross_entropy(made, data.labels, reduction="none", label_smoothing=0.1)
    )


def test_targets_are_scaled_for_the_model_and_not_for_people() -> None:
    head = HeadSpec(name="target", size=2, mean=(10.0, 0.0), std=(2.0, 1.0))
    objective = objective_of(task("regression").model_copy(update={"heads": (head,)}))
    wanted = {"target": torch.tensor([[14.0, 1.0], [10.0, 0.0]])}
    made = torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    assert objective.loss(made, wanted, "none").tolist() == [0.0, 0.0]
    assert objective.predict(made)["target"].tolist() == [[14.0, 1.0], [10.0, 0.0]]
    tally = objective.tally()
    tally.add(made + 1, wanted)
    assert tally.results()["rmse_by_target"] == {"0": pytest.approx(2.0), "1": pytest.approx(1.0)}


@pytest.mark.parametrize(("loss", "expected"), [("squared", 9.0), ("absolute", 3.0), ("huber", 2.5)])
def test_regression_has_three_losses(loss: str, expected: float) -> None:
    spec = TaskSpec(
        kind="regression",
        options={"loss": loss},
        inputs=InputSpec(shape=(4,)),
        heads=(HeadSpec(name="target", size=1),),
    )
    found = objective_of(spec).loss(torch.tensor([[3.0]]), {"target": torch.tensor([[0.0]])}, "mean")
    assert float(found) == pytest.approx(expected)


def test_pixels_that_are_ignored_do_not_count() -> None:
    data = splits("segmentation").train
    objective, made = objective_of(task("segmentation")), outputs("segmentation")
    before = objective.loss(made, data.targets, "none")
    hidden = data.labels.clone()
    hidden[0] = 255
    hidden[1, :2] = 255
    after = objective.loss(made, {"mask": hidden}, "none")
    assert float(after[0]) == 0
    pixels = functional.cross_entropy(made[1:2], data.labels[1:2].long(), reduction="none")
    torch.testing.assert_close(after[1], pixels[0, 2:].mean())
    torch.testing.assert_close(after[2:], before[2:])


def test_no_session_lets_pixels_count_that_do_not() -> None:
    with pytest.raises(InvalidValue, match="expected none"):
        objective_of(task("segmentation", ignored=0))


def test_several_heads_answer_in_one_tensor_or_by_name() -> None:
    spec = task("several")
    objective, data, made = objective_of(spec), splits("several").train, outputs("several")
    named = {"depth": made[:, :1], "mask": made[:, 1:]}
    assert [head.name for head in spec.heads] == ["depth", "mask"]
    torch.testing.assert_close(objective.loss(made, data.targets, "none"), objective.loss(named, data.targets, "none"))
    parts = {
        "depth": functional.mse_loss(named["depth"], data.targets["depth"]),
        "mask": functional.cross_entropy(named["mask"], data.targets["mask"].long()),
    }
    torch.testing.assert_close(objective.loss(made, data.targets, "mean"), parts["depth"] + parts["mask"])
    heavier = objective_of(task("several", **{"mask.weight": 3.0, "depth.loss": "absolute"}))
    off = functional.l1_loss(named["depth"], data.targets["depth"])
    torch.testing.assert_close(heavier.loss(made, data.targets, "mean"), off + 3 * parts["mask"])
    assert {"depth.target", "mask.mask", "mask.probability"} == set(objective.predict(made))
    with pytest.raises(TaskMismatch, match="lacks a head"):
        objective.loss({"depth": made[:, :1]}, data.targets, "none")


@pytest.mark.parametrize("kind", TRAINED)
def test_outputs_of_another_shape_are_refused(kind: str) -> None:
    objective, data = objective_of(task(kind)), splits(kind).train
    with pytest.raises(TaskMismatch, match="outputs do not fit the task"):
        objective.loss(outputs(kind)[:, :1], data.targets, "none")


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("classification", {"options": {"smoothing": 1}}, "0 to below 1"),
        ("classification", {"options": {"smooth": 0.1}}, "smoothing"),
        ("regression", {"options": {"loss": "cubed"}}, "squared or absolute or huber"),
        ("regression", {"options": {"dense": "yes"}}, "dense"),
        ("segmentation", {"options": {"ignored": 0}}, "expected none"),
        ("multilabel", {"options": {"smoothing": 0.1}}, "expected none"),
        ("multilabel", {"heads": (HeadSpec(name="label", size=3, units=("m", "m", "m")),)}, "mean, std and units"),
        ("several", {"heads": (HeadSpec(name="depth", kind="regression", size=1),)}, "two heads or more"),
        ("several", {"options": {"normals.loss": "huber"}}, "begin with one of depth, mask"),
        ("several", {"options": {"depth.weight": 0}}, "above 0"),
        (
            "several",
            {"heads": tuple(HeadSpec(name=name, kind="reinforcement", size=2) for name in ("a", "b")), "options": {}},
            "cannot be one of several",
        ),
    ],
)
def test_what_a_kind_does_not_know_is_refused(kind: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        require_usable(task(kind).model_copy(update=changes))


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        ("multilabel", torch.zeros(COUNT, 3), "bool"),
        ("regression", torch.full((COUNT, 2), math.nan), "NaN or infinite"),
        ("segmentation", torch.zeros(COUNT, 3, 3, dtype=torch.uint8), "height|uint8"),
    ],
)
def test_targets_that_a_kind_does_not_take_are_refused(kind: str, wrong: Tensor, said: str) -> None:
    good = splits(kind).train
    data = Splits(Dataset(good.inputs, wrong, 1.0, good.classes, task=kind), None)
    with pytest.raises(InvalidValue, match=said):
        task_kind(kind).of(data, Preprocessing())


def test_reinforcement_has_no_losses_of_samples() -> None:
    with pytest.raises(TaskMismatch, match="a kind of task of samples"):
        objective_of(reinforcement("CartPole-v1", 4, 2))


def test_what_tables_know_of_kinds_is_what_kinds_say() -> None:
    for name in kind_names():
        assert score_of(name).name in METRICS
    assert score_of("ranking").name == "loss"


def test_pixels_that_were_not_measured_do_not_count() -> None:
    head = HeadSpec(name=regression.HEAD, size=1)
    objective = regression.Deviation(head, "absolute")
    wanted = torch.tensor([[[[1.0, torch.nan], [3.0, torch.nan]]], [[[torch.nan] * 2] * 2]])
    made = torch.tensor([[[[2.0, 9.0], [6.0, 9.0]]], [[[9.0] * 2] * 2]], requires_grad=True)
    losses = objective.loss({regression.HEAD: made}, {regression.HEAD: wanted}, "none")
    assert losses.tolist() == [2.0, 0.0]
    losses.sum().backward()
    assert made.grad is not None
    assert made.grad.flatten().tolist() == [0.5, 0.0, 0.5, 0.0] + [0.0] * 4
    tally = objective.tally()
    tally.add({regression.HEAD: made.detach()}, {regression.HEAD: wanted})
    found = tally.results()
    assert (found["mae"], found["rmse"]) == (2.0, math.sqrt(5))
    none = objective.tally()
    none.add({regression.HEAD: made.detach()[1:]}, {regression.HEAD: wanted[1:]})
    assert none.results()["mae"] is None


def test_directions_are_judged_by_the_angle_between_them() -> None:
    objective = regression.Deviation(HeadSpec(name=regression.HEAD, size=3), "cosine")
    degrees = torch.tensor([0.0, 10.0, 20.0, 90.0]).deg2rad()
    wanted = torch.zeros(1, 3, 1, 5)
    wanted[:, 2] = 1
    wanted[..., 4] = torch.nan
    made = torch.zeros(1, 3, 1, 5)
    made[0, 0, 0, :4], made[0, 2, 0, :4] = 3 * degrees.sin(), 3 * degrees.cos()
    (loss,) = objective.loss({regression.HEAD: made}, {regression.HEAD: wanted}, "none")
    assert float(loss) == pytest.approx(float((1 - degrees.cos()).mean()), abs=1e-6)
    tally = objective.tally()
    for _ in range(2):
        tally.add({regression.HEAD: made}, {regression.HEAD: wanted})
    found = tally.results()
    assert found["angle"] == pytest.approx(30.0, abs=1e-4)
    assert found["median_angle"] == pytest.approx(10.0, abs=0.05)
    assert (found["within_11.25"], found["within_22.5"], found["within_30"]) == (0.5, 0.75, 0.75)
