"""What kinds of task of samples have in common: one head, and targets that a data set has for each sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from comity.contract import HeadSpec, InputSpec, Option, Preprocessing, TaskSpec
from comity.data import Dataset, Splits
from comity.errors import InvalidValue
from comity.tasks.checks import read_options, require_channels, require_heads
from comity.tasks.objective import Objective


class SampleKind(ABC):
    """A kind of task of samples, with one head; see `TaskKind`.

    Attributes:
        name: See `TaskKind`.
        head: See `TaskKind`.
        least: Fewest outputs that its head has.
        counted: What its outputs are, in words.
        options: Its options, with what each is where nobody says.
        weighted: Whether each class, label or target may weigh.
        scaled: Whether targets are scaled.
    """

    name: ClassVar[str]
    head: ClassVar[str]
    least: ClassVar[int] = 1
    counted: ClassVar[str]
    options: ClassVar[Mapping[str, Option]] = {}
    weighted: ClassVar[bool] = True
    scaled: ClassVar[bool] = False

    def require_usable(self, task: TaskSpec) -> None:
        """See `TaskKind.require_usable`."""
        read_options(task, self.options)
        require_heads(task, self.head, self.counted, self.least)
        head = task.heads[0]
        for given, allowed, name in (
            (head.weights, self.weighted, "weights"),
            (head.mean or head.std or head.units, self.scaled, "mean, std and units"),
        ):
            if given and not allowed:
                raise InvalidValue(
                    f"the head of the {self.name} task cannot have {name}",
                    expected="none",
                    received=", ".join(map(str, given))[:200],
                    action="leave them out of session.task",
                )

    def outputs(self, task: TaskSpec) -> int:
        """See `TaskKind.outputs`."""
        return task.heads[0].size

    def described(self, task: TaskSpec) -> str:
        """See `TaskKind.described`."""
        shape = "×".join(str(length) for length in task.inputs.shape)
        return f"{self.name} of {shape} inputs into {self.outputs(task)} {self.counted}"

    def takes(self, data: object) -> bool:
        """See `TaskKind.takes`."""
        return isinstance(data, Splits) and data.train.task == self.name

    def of(self, data: object, preprocessing: Preprocessing) -> TaskSpec:
        """See `TaskKind.of`."""
        if not isinstance(data, Splits):
            raise InvalidValue(f"the data are none for {self.name}", expected="samples", received=type(data).__name__)
        train = data.train
        require_channels(train.input_shape, preprocessing)
        head, options = HeadSpec(name=self.head, size=train.classes), self.options_of(train)
        for each in (train, data.test):
            if each is not None and len(each):
                self.require_targets(each.labels, head, each.input_shape)
        return TaskSpec(kind=self.name, options=options, inputs=inputs_of(train, preprocessing), heads=(head,))

    def options_of(self, train: Dataset) -> dict[str, Option]:
        """What data say of the options."""
        del train
        return {}

    def agree(self, own: TaskSpec, wanted: TaskSpec) -> bool:
        """See `TaskKind.agree`."""
        return own.inputs.shape == wanted.inputs.shape and self.outputs(own) == self.outputs(wanted)

    @abstractmethod
    def require_targets(self, targets: Tensor, head: HeadSpec, shape: tuple[int, ...]) -> None:
        """Checks that a data set has targets as this kind wants them.

        Args:
            targets: One or more, the samples in the first dimension.
            head: The head that they are for.
            shape: Shape of one input.

        Raises:
            InvalidValue: It has not.
        """

    @abstractmethod
    def objective(self, task: TaskSpec) -> Objective:
        """See `TaskKind.objective`."""


def inputs_of(train: Dataset, preprocessing: Preprocessing) -> InputSpec:
    """What models take that are trained on samples."""
    dtype = str(train.inputs.dtype).removeprefix("torch.")
    return InputSpec(shape=train.input_shape, dtype=dtype, scale=train.scale, preprocessing=preprocessing)


def wrong_targets(kind: str, expected: str, received: object, action: str) -> InvalidValue:
    """The error of targets that a kind does not take."""
    return InvalidValue(f"the targets are none for {kind}", expected=expected, received=received, action=action)
