"""What a kind of task must offer so that parties can agree on tasks of it."""

from __future__ import annotations

from typing import Protocol

from comity.contract import Preprocessing, TaskSpec
from comity.tasks.objective import Objective


class TaskKind(Protocol):
    """A kind of task, as the entry-point group `comity.tasks` names it.

    Attributes:
        name: Registered name.
        head: What its head is called where it has one, for descriptions that give nothing but a size.
    """

    name: str
    head: str

    def require_usable(self, task: TaskSpec) -> None:
        """Checks that a description is one of a task of this kind.

        Raises:
            InvalidValue: It is not: a head is missing or has too few outputs, an option is missing or unknown.
        """

    def outputs(self, task: TaskSpec) -> int:
        """How many numbers a model gives for an input."""

    def described(self, task: TaskSpec) -> str:
        """A task in words."""

    def takes(self, data: object) -> bool:
        """Whether these are data, as a node loads them, that a party can do such tasks with."""

    def of(self, data: object, preprocessing: Preprocessing) -> TaskSpec:
        """The task that data are for.

        Args:
            data: What `takes` says yes to.
            preprocessing: What is done to every input.

        Raises:
            InvalidValue: The preprocessing does not fit the data.
        """

    def agree(self, own: TaskSpec, wanted: TaskSpec) -> bool:
        """Whether two descriptions are of the same task, as far as one model can serve both."""


class TrainedKind(TaskKind, Protocol):
    """A kind of task of samples: models are trained for it by the losses of samples."""

    def objective(self, task: TaskSpec) -> Objective:
        """What models of a task are trained and tested for.

        Args:
            task: What `require_usable` says yes to.
        """
