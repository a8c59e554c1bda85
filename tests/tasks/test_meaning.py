"""What parties' numbers mean is compared, and refused with both sides where it differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from comity.contract import HeadSpec, InputSpec, Preprocessing, TaskSpec
from comity.data import Dataset, Meaning, Splits
from comity.errors import TaskMismatch
from comity.node.holdings import Holdings
from comity.tasks import require_task
from comity.tasks.meaning import differences


def rows(labels: tuple[str, ...] = (), features: tuple[str, ...] = (), *, hides: bool = False, **more: Any) -> Splits:
    """Samples of three features and three classes."""
    meaning = Meaning(labels=labels, features=features)
    return Splits(
        Dataset(torch.zeros(3, 3), torch.arange(3), more.get("scale", 1.0), 3, meaning=meaning), hides_names=hides
    )


ABC, ACB, XYZ = ("a", "b", "c"), ("a", "c", "b"), ("x", "y", "z")


def drafted(data: Splits) -> TaskSpec:
    return Holdings("clinic", data).task_spec(Preprocessing(), "session-1")


def refused(own: Splits, wanted: TaskSpec, **how: Any) -> TaskMismatch:
    with pytest.raises(TaskMismatch) as caught:
        require_task("hospital", own, wanted, **how)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_draft_says_what_the_data_mean() -> None:
    task = drafted(rows(ABC, XYZ))
    assert (task.heads[0].labels, task.inputs.features) == (ABC, XYZ)
    assert (task.inputs.dtype, task.inputs.scale) == ("float32", 1.0)
    require_task("hospital", rows(ABC, XYZ), task)


def test_classes_in_another_order_are_refused_with_both_lists() -> None:
    error = refused(rows(ACB), drafted(rows(ABC)))
    assert error.what == 'class 1 is "c" at hospital and "b" in the contract'
    assert (error.expected, error.received) == ("a, b, c", "a, c, b")
    # The same classes: none of them is another.
    assert 'classes = ["a", "b", "c"]' in error.action
    assert "[data.classes]" not in error.action


def test_a_class_that_one_party_lacks_is_named() -> None:
    short = Splits(Dataset(torch.zeros(2, 3), torch.arange(2), 1.0, 2, meaning=Meaning(labels=("a", "b"))))
    error = refused(short, drafted(rows(ABC)))
    assert 'class 2 is none at hospital and "c" in the contract' in str(error)
    assert 'classes = ["a", "b", "c"] under [data]; a class may have no sample' in error.action
    more = refused(rows(ABC), Holdings("clinic", short).task_spec(Preprocessing(), "session-1"))
    assert more.action.startswith("leave out samples of other classes")


def test_only_a_class_that_the_other_side_lacks_may_be_another_of_its() -> None:
    error = refused(rows(("Malignant", "benign", "normal")), drafted(rows(("benign", "malignant", "normal"))))
    assert error.what == 'class 0 is "Malignant" at hospital and "benign" in the contract'
    assert '[data.classes] "Malignant" = "malignant"' in error.action


def test_columns_in_another_order_are_refused() -> None:
    error = refused(rows(features=("x", "z", "y")), drafted(rows(features=XYZ)))
    assert error.what == 'feature 1 is "z" at hospital and "y" in the contract'
    assert "columns" in error.action


@pytest.mark.parametrize(("own", "wanted"), [((), ABC), (ABC, ())])
def test_names_that_one_side_alone_has_are_a_difference(own: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    error = refused(rows(own), drafted(rows(wanted)))
    assert 'classes = ["a", "b", "c"]' in error.action
    error = refused(rows(features=own), drafted(rows(features=wanted)))
    assert 'features = ["a", "b", "c"]' in error.action


def test_classes_that_are_called_by_their_numbers_have_no_names() -> None:
    require_task("hospital", rows(("0", "1", "2")), drafted(rows()))
    require_task("hospital", rows(), drafted(rows(("0", "1", "2"))))


def test_inputs_that_are_scaled_otherwise_are_refused() -> None:
    error = refused(rows(scale=1 / 16), drafted(rows()))
    assert error.what == "inputs are scaled by 0.0625 at hospital and 1 in the contract"


def test_names_that_do_not_cross_are_compared_all_the_same() -> None:
    task = drafted(rows(ABC, XYZ, hides=True))
    assert not {*ABC, *XYZ} & {*task.heads[0].labels, *task.inputs.features}
    require_task("hospital", rows(ABC, XYZ), task)
    require_task("hospital", rows(ABC, XYZ, hides=True), task)
    # Another session has other digests: nobody has a table of them.
    other = Holdings("clinic", rows(ABC, XYZ, hides=True)).task_spec(Preprocessing(), "session-2")
    assert not {*task.heads[0].labels} & {*other.heads[0].labels}
    error = refused(rows(ACB, XYZ), task)
    assert error.what == 'class 1 is "c" at hospital and "b" in the contract'


def test_a_refusal_tells_no_name_that_is_not_to_cross() -> None:
    error = refused(rows(("a", "secret", "c"), hides=True), drafted(rows(ABC)))
    assert "secret" not in f"{error} {error.received}"
    error = refused(rows(("a", "secret", "c"), hides=True), drafted(rows()))
    assert "secret" not in f"{error} {error.received}"


def test_a_protocol_may_want_the_inputs_alone_to_be_the_same() -> None:
    wanted = drafted(rows(ABC, XYZ))
    require_task("hospital", rows(ACB, XYZ), wanted, aspects=frozenset({"inputs"}))
    four = Splits(Dataset(torch.zeros(4, 3), torch.arange(4), 1.0, 4, meaning=Meaning(features=XYZ)))
    require_task("hospital", four, wanted, aspects=frozenset({"inputs"}))
    assert "feature 0" in str(refused(rows(ABC, ABC), wanted, aspects=frozenset({"inputs"})))
    require_task("hospital", rows(ACB, ABC), wanted, aspects=frozenset())


def test_units_and_scales_of_targets_are_compared() -> None:
    head = HeadSpec(name="target", size=1, labels=("weight",), units=("kg",), mean=(70.0,), std=(10.0,))
    wanted = TaskSpec(kind="regression", inputs=InputSpec(shape=(3,)), heads=(head,))
    for change, said in (
        ({"units": ("lb",)}, "the unit of weight is lb at hospital and kg in the contract"),
        ({"mean": (60.0,)}, "the mean that is taken off of weight is 60.0 at hospital and 70.0 in the contract"),
        ({"std": (1.0,)}, "the deviation that it is divided by of weight is 1.0 at hospital and 10.0 in the contract"),
    ):
        own = wanted.model_copy(update={"heads": (head.model_copy(update=change),)})
        (found,) = differences("hospital", own, wanted)
        assert found.what == said
    assert not list(differences("hospital", wanted, wanted))
    # Who leaves the scale open takes the contract's; nobody takes one off that the contract does not have.
    left_open = wanted.model_copy(update={"heads": (head.model_copy(update={"mean": (), "std": ()}),)})
    assert not list(differences("hospital", left_open, wanted))
    assert len(list(differences("hospital", wanted, left_open))) == 2


def test_targets_in_another_order_are_brought_together_by_their_columns() -> None:
    head = HeadSpec(name="target", size=2, labels=("weight", "height"))
    wanted = TaskSpec(kind="regression", inputs=InputSpec(shape=(3,)), heads=(head,))
    other = wanted.model_copy(update={"heads": (head.model_copy(update={"labels": ("height", "weight")}),)})
    (found,) = differences("hospital", other, wanted)
    assert found.what == 'target 0 is "height" at hospital and "weight" in the contract'
    assert found.action.endswith("[data.table] target")


def test_a_long_list_is_cut() -> None:
    many = tuple(f"class-{number:04}" for number in range(1000))
    data = Dataset(torch.zeros(3, 3), torch.arange(3), 1.0, 1000, meaning=Meaning(labels=many))
    other = replace(data, meaning=Meaning(labels=(*many[:-1], "another")))
    error = refused(Splits(other), drafted(Splits(data)))
    assert "class 999" in error.what
    assert str(error.expected).endswith("1000 in all")
