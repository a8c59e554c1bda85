"""Who labels what a client has chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Int
from torch import Tensor

from comity.protocols.peer_study.task import StudyTask


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """What annotators said.

    Attributes:
        indices: Samples with a label, of those that were asked for.
        labels: What they said, in the same order.
    """

    indices: Int[Tensor, " n"]
    labels: Tensor


class Annotators(Protocol):
    """Who labels."""

    def label(self, step: int, indices: Int[Tensor, " n"]) -> Annotated:
        """Labels of samples of the pool; it may take days, and be asked again after a restart.

        Args:
            step: The labelling step.
            indices: Which.
        """
        ...


class SimulatedAnnotators:
    """The labels that the pool comes with, as a simulated oracle says them.

    Args:
        task: The client's.
    """

    def __init__(self, task: StudyTask) -> None:
        self._task = task
        self._oracle = task.oracle()

    def label(self, step: int, indices: Int[Tensor, " n"]) -> Annotated:
        """See `Annotators.label`."""
        del step
        first = self._task.samples
        return Annotated(indices, self._oracle.label(indices - first))
