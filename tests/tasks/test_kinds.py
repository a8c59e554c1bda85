"""Kinds of task: what each says of itself, which data fit, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from comity.contract import HeadSpec, InputSpec, Preprocessing, TaskSpec
from comity.data import DataConfig, Splits, load_data
from comity.environments import EnvironmentConfig, EnvironmentSet, load_environments
from comity.errors import InvalidValue, TaskMismatch, UnknownTask
from comity.tasks import kind_for, kind_names, registry, require_task, require_usable, task_kind
from comity.tasks.classification import classification
from comity.tasks.reinforcement import reinforcement

BUILT_IN = ("classification", "multilabel", "regression", "reinforcement", "segmentation", "several")


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_data(DataConfig(source="digits", per_class=1))


@pytest.fixture(scope="module")
def poles() -> EnvironmentSet:
    return load_environments(EnvironmentConfig.model_validate({"source": "gymnasium:CartPole-v1", "games": 2}))


def test_data_say_what_they_are_for(digits: Splits, poles: EnvironmentSet) -> None:
    assert kind_names() == BUILT_IN
    images = kind_for(digits).of(digits, Preprocessing(mean=(0.5,), std=(2.0,)))
    assert images == TaskSpec(
        kind="classification",
        inputs=InputSpec(
            shape=(1, 8, 8), dtype="float32", scale=1 / 16, preprocessing=Preprocessing(mean=(0.5,), std=(2.0,))
        ),
        heads=(HeadSpec(name="class", size=10),),
    )
    games = kind_for(poles).of(poles, Preprocessing())
    assert games.options == {"environment": "CartPole-v1"}
    for task, outputs, words in (
        (images, 10, "classification of 1×8×8 inputs into 10 classes"),
        (games, 2, "CartPole-v1: observations of 4 numbers, 2 actions"),
    ):
        kind = require_usable(task)
        assert (kind.name, kind.outputs(task), kind.described(task)) == (task.kind, outputs, words)


def test_data_fit_a_task_whatever_else_is_said_of_it(digits: Splits, poles: EnvironmentSet) -> None:
    labelled = HeadSpec(name="class", size=10, labels=tuple("0123456789"))
    said = classification((1, 8, 8), 10, Preprocessing(mean=(0.5,), std=(2.0,))).model_copy(
        update={"heads": (labelled,)}
    )
    require_task("clinic", digits, said)
    require_task("clinic", poles, reinforcement("CartPole-v1", 4, 2))
    require_task("server", None, said)


@pytest.mark.parametrize(
    ("wanted", "own", "expected"),
    [
        (classification((1, 8, 9), 10), "digits", "1×8×9"),
        (classification((3, 8, 8), 10, Preprocessing(mean=(0.5,) * 3, std=(1.0,) * 3)), "digits", "3×8×8"),
        (classification((1, 8, 8), 11), "digits", "11 classes"),
        (reinforcement("CartPole-v1", 4, 2), "digits", "CartPole-v1"),
        (reinforcement("LunarLander-v3", 4, 2), "poles", "LunarLander-v3"),
        (reinforcement("CartPole-v1", 8, 2), "poles", "8 numbers"),
        (classification((4,), 2), "poles", "classification of 4 inputs"),
    ],
)
def test_data_for_another_task_are_refused(
    wanted: TaskSpec, own: str, expected: str, digits: Splits, poles: EnvironmentSet
) -> None:
    with pytest.raises(TaskMismatch, match=expected) as caught:
        require_task("clinic", {"digits": digits, "poles": poles}[own], wanted)
    assert caught.value.received


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (TaskSpec(kind="classification"), "received no head"),
        (TaskSpec(kind="classification", heads=[HeadSpec(name="class", size=1)]), "2 classes or more"),
        (TaskSpec(kind="classification", heads=[HeadSpec(name="depth", size=2)]), "one head, class"),
        (TaskSpec(kind="classification", heads=[HeadSpec(name="class", kind="depth", size=2)]), "one head, class"),
        (TaskSpec(kind="classification", heads=[HeadSpec(name=f"h{i}", size=2) for i in range(9)]), "9 heads"),
        (classification((4,), 2).model_copy(update={"options": {"smooth": 0.1}}), "smooth"),
        (TaskSpec(kind="reinforcement", heads=[HeadSpec(name="action", size=2)]), "environment"),
        (reinforcement("", 4, 2), "environment"),
        (reinforcement("CartPole-v1", 4, 1), "2 actions or more"),
    ],
)
def test_a_task_described_wrongly_is_refused(task: TaskSpec, said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        require_usable(task)


def test_what_cannot_be_normalised_is_refused(digits: Splits, poles: EnvironmentSet) -> None:
    preprocessing = Preprocessing(mean=(0.5, 0.5), std=(1.0, 1.0))
    for data, said in ((digits, "1 values each"), (poles, "none for games")):
        with pytest.raises(InvalidValue, match=f"session.normalization.*{said}"):
            kind_for(data).of(data, preprocessing)


def test_data_that_no_kind_takes_are_refused() -> None:
    with pytest.raises(InvalidValue, match="classification, multilabel"):
        kind_for(object())


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package as an installer leaves it, that adds kinds of task."""
    (tmp_path / "their_tasks.py").write_text(
        "from comity.tasks.classification import ClassificationKind\n"
        "class Ranking(ClassificationKind):\n"
        "    name = 'ranking'\n"
        "    def takes(self, data):\n"
        "        return data == 'ranks' or super().takes(data)\n"
        "KIND = Ranking()\n"
    )
    (tmp_path / "leaving_tasks.py").write_text("import sys\nsys.exit(3)\n")
    info = tmp_path / "their_tasks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-tasks\nVersion: 1.0\n")
    lines = ["ranking = their_tasks:KIND", "broken = their_tasks:absent", "classification = their_tasks:KIND"]
    lines.append("leaving = leaving_tasks:KIND")
    (info / "entry_points.txt").write_text("\n".join(["[comity.tasks]", *lines]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_tasks", raising=False)
    registry._targets.cache_clear()
    yield
    registry._targets.cache_clear()


@pytest.mark.usefixtures("installed")
def test_a_package_adds_kinds_but_replaces_none(digits: Splits) -> None:
    assert kind_names() == tuple(sorted((*BUILT_IN, "broken", "leaving", "ranking")))
    assert (task_kind("ranking").name, task_kind("classification").name) == ("ranking", "classification")
    assert kind_for(digits).name == "classification"
    ranking = classification((1, 8, 8), 10).model_copy(update={"kind": "ranking"})
    require_task("clinic", digits, ranking)
    with pytest.raises(UnknownTask, match="broken.*their_tasks:absent"):
        task_kind("broken")
    with pytest.raises(UnknownTask, match="leaving.*leaving_tasks:KIND"):
        task_kind("leaving")
    assert kind_for("ranks").name == "ranking"


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownTask, match="did you mean 'classification'"):
        task_kind("clasification")
    with pytest.raises(UnknownTask, match="entry-point group 'comity.tasks'"):
        task_kind("weather")
