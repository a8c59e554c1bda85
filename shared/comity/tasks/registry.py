"""Kinds of task by name: the built-in ones, and those that installed packages add."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from comity.contract import ASPECTS, Aspect, Preprocessing, TaskSpec
from comity.errors import InvalidValue, TaskMismatch, UnknownTask
from comity.suggestions import did_you_mean
from comity.tasks.kind import TaskKind
from comity.tasks.meaning import differences, hides_names, meaning_of, with_meaning
from comity.tasks.objective import Objective, Outputs

if TYPE_CHECKING:
    from torch import Tensor

GROUP = "comity.tasks"

_BUILT_IN: Mapping[str, str] = {
    "classification": "comity.tasks.classification:KIND",
    "multilabel": "comity.tasks.multilabel:KIND",
    "regression": "comity.tasks.regression:KIND",
    "reinforcement": "comity.tasks.reinforcement:KIND",
    "segmentation": "comity.tasks.segmentation:KIND",
    "several": "comity.tasks.several:KIND",
}


def kind_names() -> tuple[str, ...]:
    """Every kind that this installation has, sorted. What a package installs cannot replace a built-in kind."""
    return tuple(sorted(_targets()))


def task_kind(name: str) -> TaskKind:
    """A kind of task by its name.

    Raises:
        UnknownTask: There is none of that name, or the package that has it cannot be imported.
    """
    targets = _BUILT_IN if name in _BUILT_IN else _targets()
    if name not in targets:
        action = did_you_mean(name, targets, f"others are added by the entry-point group {GROUP!r}", spelled="{!r}")
        raise UnknownTask(
            "There is no such kind of task here",
            expected=f"one of {', '.join(sorted(targets))}",
            received=repr(name),
            action=action,
        )
    try:
        kind: TaskKind = resolve_name(targets[name])
    except (Exception, SystemExit) as error:
        raise UnknownTask(
            f"The kind of task {name!r} cannot be imported from {targets[name]}: {error}",
            action="repair or remove the package that adds it",
        ) from error
    return kind


def kind_for(data: object) -> TaskKind:
    """The kind of task that data are for where it is not stated: the first of those that take them.

    Raises:
        InvalidValue: None does.
    """
    built_in = list(_BUILT_IN)
    for name in [*built_in, *(each for each in kind_names() if each not in built_in)]:
        # A package that does not work keeps the others from nothing.
        with suppress(UnknownTask):
            kind = task_kind(name)
            if kind.takes(data):
                return kind
    raise InvalidValue(
        "the data are for no kind of task that there is here",
        expected=", ".join(kind_names()),
        received=type(data).__name__,
        action=f"install the package that adds it to the entry-point group {GROUP!r}",
    )


def require_usable(task: TaskSpec) -> TaskKind:
    """Checks that a task can be used here; returns its kind.

    Raises:
        UnknownTask: There is no such kind here.
        InvalidValue: It is described wrongly.
    """
    kind = task_kind(task.kind)
    kind.require_usable(task)
    return kind


def objective_of(task: TaskSpec) -> Objective:
    """What models of a task of samples are trained and tested for.

    Raises:
        UnknownTask: There is no such kind here.
        InvalidValue: It is described wrongly.
        TaskMismatch: It is no task of samples.
    """
    kind = require_usable(task)
    make: Callable[[TaskSpec], Objective] | None = getattr(kind, "objective", None)
    if make is None:
        raise TaskMismatch(
            f"nothing is trained by losses of samples in {kind.name} tasks",
            expected="a kind of task of samples",
            received=kind.name,
            action="use a protocol that is for such tasks",
        )
    return make(task)


def predictions(task: TaskSpec, outputs: Outputs) -> dict[str, Tensor]:
    """What a model's outputs say of its inputs, as somebody uses it: classes, probabilities, numbers in their own units.

    Raises:
        UnknownTask: There is no such kind here.
        InvalidValue: The task is described wrongly.
        TaskMismatch: The kind of task does not say.
    """
    kind = require_usable(task)
    say: Callable[[TaskSpec, Outputs], dict[str, Tensor]] | None = getattr(kind, "predict", None)
    return objective_of(task).predict(outputs) if say is None else say(task, outputs)


def require_task(party: str, data: object | None, wanted: TaskSpec, aspects: frozenset[Aspect] = ASPECTS) -> None:
    """Checks that a party's data are for a contract's task, and mean the same.

    Args:
        party: The party, for the error.
        data: Its data; None for a party without.
        wanted: The contract's task.
        aspects: What of it has to be the same; where outputs have not, the kind of task may be another.

    Raises:
        UnknownTask: There is no such kind here.
        InvalidValue: The task is described wrongly.
        TaskMismatch: The data are for another, or mean something else.
    """
    kind = require_usable(wanted)
    if data is None or not aspects:
        return
    found: TaskSpec | None = None
    if "outputs" not in aspects:
        own_kind = kind_for(data)
        found = own_kind.of(data, Preprocessing())
        own, fits = own_kind.described(found), found.inputs.shape == wanted.inputs.shape
    elif not kind.takes(data):
        other = kind_for(data)
        own, fits = other.described(other.of(data, Preprocessing())), False
    else:
        found = kind.of(data, Preprocessing())
        own, fits = kind.described(found), kind.agree(found, wanted)
    if found is not None and found.inputs.shape == wanted.inputs.shape:
        meant = with_meaning(found, meaning_of(data))
        for each in differences(party, meant, wanted, aspects, hides=hides_names(data)):
            raise TaskMismatch(each.what, expected=each.wanted, received=each.own, action=each.action)
    if not fits:
        raise TaskMismatch(
            f"{party}'s data are for another task",
            expected=kind.described(wanted),
            received=own,
            action="use data for the same task on both sides: inputs of one shape, the same classes or environment",
        )


@cache
def _targets() -> dict[str, str]:
    # To look through all that is installed takes its time.
    return {point.name: point.value for point in entry_points(group=GROUP)} | dict(_BUILT_IN)
