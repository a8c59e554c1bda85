"""What kinds of task check alike."""

from __future__ import annotations

from collections.abc import Mapping

from comity.contract import Option, Preprocessing, TaskSpec
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


def read_options(task: TaskSpec, defaults: Mapping[str, Option]) -> dict[str, Option]:
    """A task's options, each as the task has it or else as a kind has it.

    Args:
        task: The task.
        defaults: The kind's options, whose types those of the task have.

    Raises:
        InvalidValue: One is unknown, or of another type.
    """
    for name, value in task.options.items():
        default = defaults.get(name)
        # Whole numbers come as such over the wire, whatever they are meant for.
        fits = type(value) is type(default) or (type(default) is float and type(value) is int)
        if default is None or not fits:
            raise InvalidValue(
                f"the options of the {task.kind} task cannot be used",
                expected=", ".join(f"{each} ({type(kind).__name__})" for each, kind in defaults.items()) or "none",
                received=f"{name} = {value!r}"[:200],
                action="correct session.task.options",
            )
    return {**defaults, **task.options}


def bad_option(task: TaskSpec, name: str, expected: str) -> InvalidValue:
    """The error of an option that is out of its range."""
    return InvalidValue(
        f"the option {name} of the {task.kind} task cannot be used",
        expected=expected,
        received=task.options.get(name),
        action="correct session.task.options",
    )


def require_heads(task: TaskSpec, name: str, what: str, least: int = 2) -> None:
    """Checks that a task has one head, with so many outputs or more.

    Args:
        task: The task.
        name: What the head is called.
        what: What its outputs are, for the error.
        least: Fewest outputs.

    Raises:
        InvalidValue: It has not.
    """
    heads = task.heads
    fits = len(heads) == 1 and (heads[0].name, heads[0].kind) == (name, "")
    if fits and heads[0].size < least:
        raise InvalidValue(
            f"a {task.kind} task has too few {what}",
            expected=f"{least} {what} or more",
            received=", ".join(heads[0].labels)[:500] or heads[0].size,
            action=f"use data of more {what}, or list all that the parties have in node.toml: classes = [...] under [data]"
            if what == "classes"
            else "correct session.task",
        )
    if not fits:
        received = ", ".join(f"{head.size} outputs, {head.name}" for head in heads[:4]) or "no head"
        raise InvalidValue(
            f"the heads of the {task.kind} task cannot be used",
            expected=f"one head, {name}, of {least} {what} or more",
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
