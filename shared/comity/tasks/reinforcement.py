"""Acting in an environment: one head with a score for each action."""

from __future__ import annotations

from torch import Tensor

from comity.contract import HeadSpec, InputSpec, Preprocessing, TaskSpec
from comity.environments import EnvironmentSet
from comity.errors import InvalidValue
from comity.tasks.checks import require_heads, require_options
from comity.tasks.objective import Outputs, sole

HEAD = "action"


def reinforcement(environment: str, features: int, actions: int) -> TaskSpec:
    """A task of an environment.

    Args:
        environment: What is played, for example `CartPole-v1`.
        features: Length of an observation.
        actions: Number of actions.
    """
    return TaskSpec(
        kind=KIND.name,
        options={"environment": environment},
        inputs=InputSpec(shape=(features,)),
        heads=(HeadSpec(name=HEAD, size=actions),),
    )


class ReinforcementKind:
    """See `TaskKind`."""

    name = "reinforcement"
    head = HEAD

    def require_usable(self, task: TaskSpec) -> None:
        """See `TaskKind.require_usable`."""
        require_options(task, environment=str)
        require_heads(task, HEAD, "actions")
        if task.inputs.preprocessing.mean:
            raise _normalized(task.inputs.preprocessing)

    def outputs(self, task: TaskSpec) -> int:
        """See `TaskKind.outputs`."""
        return task.heads[0].size

    def described(self, task: TaskSpec) -> str:
        """See `TaskKind.described`."""
        shape = "×".join(str(length) for length in task.inputs.shape)
        environment = str(task.options["environment"])
        return f"{environment}: observations of {shape} numbers, {self.outputs(task)} actions"

    def takes(self, data: object) -> bool:
        """See `TaskKind.takes`."""
        return isinstance(data, EnvironmentSet)

    def of(self, data: object, preprocessing: Preprocessing) -> TaskSpec:
        """See `TaskKind.of`."""
        if not isinstance(data, EnvironmentSet):
            raise InvalidValue("the data are none to act in", expected="games", received=type(data).__name__)
        if preprocessing.mean:
            raise _normalized(preprocessing)
        environment = data.environment
        task = reinforcement(environment.name, environment.features, environment.actions)
        return task.model_copy(update={"inputs": task.inputs.model_copy(update={"dtype": "float32", "scale": 1.0})})

    def predict(self, task: TaskSpec, outputs: Outputs) -> dict[str, Tensor]:
        """The likeliest action, and the probability of each."""
        scores = sole(outputs, task.heads[0])
        return {HEAD: scores.argmax(dim=1), "probability": scores.softmax(dim=1)}

    def agree(self, own: TaskSpec, wanted: TaskSpec) -> bool:
        """See `TaskKind.agree`."""
        same_sizes = own.inputs.shape == wanted.inputs.shape and self.outputs(own) == self.outputs(wanted)
        return same_sizes and own.options == wanted.options


def _normalized(preprocessing: Preprocessing) -> InvalidValue:
    return InvalidValue(
        "session.normalization cannot be used",
        expected="none for games",
        received=preprocessing.mean,
        action="leave it out",
    )


KIND = ReinforcementKind()
