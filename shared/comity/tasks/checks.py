"""What kinds of task check alike."""

from __future__ import annotations

from comity.contract import Preprocessing, TaskSpec
from comity.errors import InvalidValue


def require_options(task: TaskSpec, **wanted: type) -> None:
    """Checks that a task has exactly these options.

    Raises:
        InvalidValue: One is missing, unknown, or of another type.
    """
    if {name: type(value) for name, value in task.options.items()} != wanted or "" in task.options.values():
        raise InvalidValue(
            f"the options of the {task.kind} task cannot be used",
            expected=", ".join(f"{name} ({kind.__name__})" for name, kind in wanted.items()) or "none",
            received=", ".join(f"{name} = {value!r}" for name, value in task.options.items())[:200] or "none",
            action="correct session.task.options",
        )


def require_heads(task: TaskSpec, name: str, what: str) -> None:
    """Checks that a task has one head, with two outputs or more.

    Args:
        task: The task.
        name: What the head is called.
        what: What its outputs are, for the error.

    Raises:
        InvalidValue: It has not.
    """
    heads = task.heads
    if len(heads) != 1 or (heads[0].name, heads[0].kind) != (name, "") or heads[0].size < 2:
        received = ", ".join(f"{head.size} outputs, {head.name}" for head in heads[:4]) or "no head"
        raise InvalidValue(
            f"the heads of the {task.kind} task cannot be used",
            expected=f"one head, {name}, of 2 {what} or more",
            received=received if len(heads) < 5 else f"{len(heads)} heads",
            action="correct session.task",
        )


def require_channels(shape: tuple[int, ...], preprocessing: Preprocessing) -> None:
    """Checks that inputs can be normalised so.

    Raises:
        InvalidValue: They cannot: mean and standard deviation do not have one value for each channel.
    """
    counts = {len(preprocessing.mean), len(preprocessing.std)}
    if counts not in ({0}, {shape[0]}):
        raise InvalidValue(
            "session.normalization cannot be used",
            expected=f"mean and std with {shape[0]} values each, one for each channel of the data",
            received=f"{len(preprocessing.mean)} and {len(preprocessing.std)}",
            action="correct session.normalization, or leave it out",
        )
