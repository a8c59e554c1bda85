"""Several things of one sample, each by a head of its own: segmentation, depth and normals of one picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from comity.contract import HeadSpec, Json, Option, Preprocessing, TaskSpec
from comity.data import Splits
from comity.errors import InvalidValue, TaskMismatch
from comity.tasks.checks import require_channels
from comity.tasks.objective import Objective, Outputs, Reduction, Tally, Targets, require_shape
from comity.tasks.registry import task_kind
from comity.tasks.samples import SampleKind, inputs_of

_WEIGHT = "weight"


class SeveralKind:
    """See `TaskKind`. Each head names its kind; the options of a head begin with its name, as `depth.loss`.

    The option `weight` of a head, above 0, is what its loss counts in the sum.
    """

    name = "several"
    head = ""

    def require_usable(self, task: TaskSpec) -> None:
        """See `TaskKind.require_usable`."""
        if len(task.heads) < 2:
            raise _wrong(task, "two heads or more, each with its kind", f"{len(task.heads)}")
        names = {head.name for head in task.heads}
        for option in task.options:
            if option.partition(".")[0] not in names:
                raise _wrong(task, f"options that begin with one of {', '.join(sorted(names))}", option)
        for head in task.heads:
            kind, part = part_of(task, head)
            kind.require_usable(part)
            weight = _weight(task, head)
            if isinstance(weight, bool | str) or not 0 < weight < 1e6:
                raise _wrong(task, f"a number above 0 as {head.name}.{_WEIGHT}", repr(weight))

    def outputs(self, task: TaskSpec) -> int:
        """See `TaskKind.outputs`: those of all heads, one after the other."""
        return sum(head.size for head in task.heads)

    def described(self, task: TaskSpec) -> str:
        """See `TaskKind.described`."""
        shape = "×".join(str(length) for length in task.inputs.shape)
        parts = ", ".join(f"{head.name} ({head.kind}, {head.size})" for head in task.heads)
        return f"of {shape} inputs {parts}"

    def takes(self, data: object) -> bool:
        """See `TaskKind.takes`."""
        return isinstance(data, Splits) and data.train.task == self.name

    def of(self, data: object, preprocessing: Preprocessing) -> TaskSpec:
        """See `TaskKind.of`."""
        if not isinstance(data, Splits):
            raise InvalidValue("the data are none of several heads", expected="samples", received=type(data).__name__)
        train = data.train
        require_channels(train.input_shape, preprocessing)
        options: dict[str, Option] = {}
        for each in (train, data.test):
            for head in each.heads if each is not None and len(each) else ():
                kind = _kind(head)
                targets = each.targets[head.name] if each is not None else train.labels
                kind.require_targets(targets, head, train.input_shape)
                if head.kind == "regression" and targets.ndim > 2:
                    options[f"{head.name}.dense"] = True
        return TaskSpec(kind=self.name, options=options, inputs=inputs_of(train, preprocessing), heads=train.heads)

    def agree(self, own: TaskSpec, wanted: TaskSpec) -> bool:
        """See `TaskKind.agree`: the same heads in the same order."""
        if own.inputs.shape != wanted.inputs.shape or len(own.heads) != len(wanted.heads):
            return False
        return all(
            (one.name, one.kind) == (other.name, other.kind)
            and _kind(one).agree(part_of(own, one)[1], part_of(wanted, other)[1])
            for one, other in zip(own.heads, wanted.heads, strict=True)
        )

    def objective(self, task: TaskSpec) -> Objective:
        """See `TaskKind.objective`."""
        parts = {}
        for head in task.heads:
            kind, part = part_of(task, head)
            weight = _weight(task, head)
            parts[head.name] = _Part(head, kind.head, kind.objective(part), float(weight))
        return Sum(parts)


class _Part:
    """A head and what it is trained for."""

    def __init__(self, head: HeadSpec, own: str, objective: Objective, weight: float) -> None:
        self.head = head
        self.own = own
        self.objective = objective
        self.weight = weight

    def targets(self, targets: Targets) -> Targets:
        """The targets of this head, as its kind calls them."""
        return {self.own: targets[self.head.name]}


class Sum:
    """The weighted sum of what several heads are trained for; see `Objective`.

    A model gives a tensor in which the heads' outputs follow each other in the second dimension, or a dict of them.
    """

    def __init__(self, parts: Mapping[str, _Part]) -> None:
        self._parts = parts
        self.heads = tuple(parts)

    def loss(self, outputs: Outputs, targets: Targets, reduction: Reduction) -> Tensor:
        """See `Objective.loss`."""
        total, *others = self.losses(outputs, targets, reduction).values()
        for each in others:
            total = total + each
        return total

    def losses(self, outputs: Outputs, targets: Targets, reduction: Reduction = "mean") -> dict[str, Tensor]:
        """See `Composite.losses`."""
        made = self._apart(outputs)
        return {
            name: part.weight * part.objective.loss(made[name], part.targets(targets), reduction)
            for name, part in self._parts.items()
        }

    def tally(self) -> Tally:
        """See `Objective.tally`."""
        return _Tallies(self._parts, self._apart)

    def predict(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Objective.predict`: what each head says, its name first."""
        made = self._apart(outputs)
        return {
            f"{name}.{what}": tensor
            for name, part in self._parts.items()
            for what, tensor in part.objective.predict(made[name]).items()
        }

    def _apart(self, outputs: Outputs) -> dict[str, Tensor]:
        sizes = [part.head.size for part in self._parts.values()]
        if isinstance(outputs, Tensor):
            require_shape(outputs, (len(outputs), sum(sizes), *outputs.shape[2:]))
            return dict(zip(self._parts, outputs.split(sizes, dim=1), strict=True))
        if missing := [name for name in self._parts if name not in outputs]:
            raise TaskMismatch(
                "the model's answer lacks a head of the task",
                expected=", ".join(self._parts),
                received=", ".join(map(str, outputs)) or "nothing",
                action=f"have the model give {missing[0]} too",
            )
        return {name: outputs[name] for name in self._parts}


class _Tallies:
    """A test of every head; see `Tally`."""

    def __init__(self, parts: Mapping[str, _Part], apart: Callable[[Outputs], dict[str, Tensor]]) -> None:
        self._parts = parts
        self._apart = apart
        self._tallies = {name: part.objective.tally() for name, part in parts.items()}

    def add(self, outputs: Outputs, targets: Targets) -> None:
        """See `Tally.add`."""
        made = self._apart(outputs)
        for name, tally in self._tallies.items():
            tally.add(made[name], self._parts[name].targets(targets))

    def results(self) -> dict[str, Json]:
        """See `Tally.results`: those of each head, its name first."""
        return {
            f"{name}.{what}": value for name, tally in self._tallies.items() for what, value in tally.results().items()
        }


def part_of(task: TaskSpec, head: HeadSpec) -> tuple[SampleKind, TaskSpec]:
    """A head's kind, and its task by itself."""
    kind, prefix = _kind(head), f"{head.name}."
    options = {
        name.removeprefix(prefix): value
        for name, value in task.options.items()
        if name.startswith(prefix) and name != f"{prefix}{_WEIGHT}"
    }
    alone = head.model_copy(update={"name": kind.head, "kind": ""})
    return kind, TaskSpec(kind=kind.name, options=options, inputs=task.inputs, heads=(alone,))


def _weight(task: TaskSpec, head: HeadSpec) -> Option:
    return task.options.get(f"{head.name}.{_WEIGHT}", 1.0)


def _kind(head: HeadSpec) -> SampleKind:
    kind = task_kind(head.kind) if head.kind else None
    if not isinstance(kind, SampleKind):
        raise InvalidValue(
            f"the head {head.name} cannot be one of several",
            expected="a kind of task of samples with one head, such as classification or regression",
            received=head.kind or "none",
            action="name its kind in session.task.heads",
        )
    return kind


def _wrong(task: TaskSpec, expected: str, received: str) -> InvalidValue:
    return InvalidValue(
        f"the {task.kind} task cannot be used", expected=expected, received=received, action="correct session.task"
    )


KIND = SeveralKind()
