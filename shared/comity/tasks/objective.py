"""What models of a task are trained for, and how a test of them is told: of any kind, for the code that trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from comity.contract import HeadSpec, Json
from comity.errors import TaskMismatch

Outputs = Tensor | Mapping[str, Tensor]
"""What a model gives for a batch: one tensor, or for tasks of several heads one for each head."""

Targets = Mapping[str, Tensor]
"""What is to be told of a batch of samples, by head."""

Reduction = Literal["mean", "none"]
"""What is made of the losses of a batch's samples: their mean, or nothing."""


class Tally(Protocol):
    """A test in progress: takes batches, and says what they come to."""

    def add(self, outputs: Outputs, targets: Targets) -> None:
        """Takes a batch."""

    def results(self) -> dict[str, Json]:
        """What a test of all that was taken says, by metric: a number, None where it has no meaning, or one for each class.

        At least one sample was taken.
        """


class Objective(Protocol):
    """What models of a task are trained and tested for.

    Attributes:
        heads: The heads, where a model may answer with a dict of them; nothing where it answers with one tensor.
    """

    heads: tuple[str, ...]

    def loss(self, outputs: Outputs, targets: Targets, reduction: Reduction) -> Tensor:
        """The loss of a batch: of each sample, or their mean.

        Each sample's is at or above 0, and follows from that sample alone: so a loss over some of the samples is a lower
        bound of that over all, and models can be screened exactly.

        Raises:
            TaskMismatch: The model's outputs have another shape than the task wants.
        """

    def tally(self) -> Tally:
        """A test that is to begin."""

    def predict(self, outputs: Outputs) -> dict[str, Tensor]:
        """What outputs say of their samples, as somebody uses it: classes, probabilities, targets in their own units."""


@runtime_checkable
class Composite(Objective, Protocol):
    """An objective of several heads, whose losses somebody may weigh against each other."""

    def losses(self, outputs: Outputs, targets: Targets, reduction: Reduction = "mean") -> dict[str, Tensor]:
        """The loss of each head, by its name, as much as it counts in the sum; see `Objective.loss`."""


@runtime_checkable
class Imitable(Objective, Protocol):
    """An objective of models that can teach each other: one learns what another says, beside what is true."""

    def imitated(self, outputs: Outputs, teacher: Outputs, temperature: float) -> Tensor:
        """How far what a model says of a batch is from what its teacher says of it: the mean over the batch.

        Args:
            outputs: Of the model that learns.
            teacher: Of the one that it learns from.
            temperature: By which both are divided where they are logits, above 0.
        """


def sole(outputs: Outputs, head: HeadSpec) -> Tensor:
    """The outputs of the one head that a task has."""
    if isinstance(outputs, Tensor):
        return outputs
    if head.name in outputs:
        return outputs[head.name]
    raise TaskMismatch(
        "the model's answer lacks a head of the task",
        expected=head.name,
        received=", ".join(map(str, outputs)) or "nothing",
        action="have the model give one tensor, or a dict with the head's name",
    )


def require_shape(outputs: Tensor, expected: tuple[int, ...]) -> None:
    """Checks the shape of a model's outputs.

    Raises:
        TaskMismatch: It is another.
    """
    if outputs.shape != expected:
        raise TaskMismatch(
            "the model's outputs do not fit the task",
            expected=f"{list(expected)}: one number for each class, label or target",
            received=list(outputs.shape),
            action="use a model that gives them so; `outputs` of its factory says how many there are",
        )


def titles(head: HeadSpec) -> list[str]:
    """What a head's classes, labels or targets are called; where nobody said, their numbers. Each is another."""
    names = list(head.labels) or [str(place) for place in range(head.size)]
    return names if len(set(names)) == len(names) else [f"{place} {name}" for place, name in enumerate(names)]


def by_name(head: HeadSpec, values: Tensor, known: Tensor | None = None) -> dict[str, Json]:
    """A number for each class, label or target.

    Args:
        head: The head.
        values: The numbers.
        known: Of which there is something to say; None for all. Of the others it is None.
    """
    said = values.tolist()
    if known is not None:
        said = [value if there else None for value, there in zip(said, known.tolist(), strict=True)]
    return dict(zip(titles(head), said, strict=True))


def mean_of(values: Tensor, known: Tensor) -> float | None:
    """The mean of those numbers of which there is something to say; None where there is nothing."""
    return float(values[known].double().mean()) if bool(known.any()) else None


def finite(value: Tensor) -> float | None:
    """A number; None for one that is none."""
    number = float(value)
    return number if abs(number) < float("inf") else None
