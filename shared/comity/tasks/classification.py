"""Samples into classes: one head with a score for each class."""

from __future__ import annotations

from comity.contract import HeadSpec, InputSpec, Preprocessing, TaskSpec
from comity.data import Dataset, Splits
from comity.errors import InvalidValue
from comity.tasks.checks import require_channels, require_heads, require_options

HEAD = "class"


def classification(shape: tuple[int, ...], classes: int, preprocessing: Preprocessing | None = None) -> TaskSpec:
    """A task of which nothing but the sizes is said.

    Args:
        shape: Shape of one input, channels first.
        classes: Number of classes.
        preprocessing: What is done to every input; None for nothing.
    """
    inputs = InputSpec(shape=shape, preprocessing=preprocessing or Preprocessing())
    return TaskSpec(kind=KIND.name, inputs=inputs, heads=(HeadSpec(name=HEAD, size=classes),))


class ClassificationKind:
    """See `TaskKind`."""

    name = "classification"
    head = HEAD

    def require_usable(self, task: TaskSpec) -> None:
        """See `TaskKind.require_usable`."""
        require_options(task)
        require_heads(task, HEAD, "classes")

    def outputs(self, task: TaskSpec) -> int:
        """See `TaskKind.outputs`."""
        return task.heads[0].size

    def described(self, task: TaskSpec) -> str:
        """See `TaskKind.described`."""
        shape = "×".join(str(length) for length in task.inputs.shape)
        return f"{self.name} of {shape} inputs into {self.outputs(task)} classes"

    def takes(self, data: object) -> bool:
        """See `TaskKind.takes`."""
        return isinstance(data, Splits)

    def of(self, data: object, preprocessing: Preprocessing) -> TaskSpec:
        """See `TaskKind.of`."""
        if not isinstance(data, Splits):
            raise InvalidValue("the data are none to classify", expected="samples", received=type(data).__name__)
        train: Dataset = data.train
        require_channels(train.input_shape, preprocessing)
        task = classification(train.input_shape, train.classes, preprocessing)
        dtype = str(train.inputs.dtype).removeprefix("torch.")
        return task.model_copy(update={"inputs": task.inputs.model_copy(update={"dtype": dtype, "scale": train.scale})})

    def agree(self, own: TaskSpec, wanted: TaskSpec) -> bool:
        """See `TaskKind.agree`."""
        return own.inputs.shape == wanted.inputs.shape and self.outputs(own) == self.outputs(wanted)


KIND = ClassificationKind()
