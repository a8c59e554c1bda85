"""Training a model of one's own and exchanging another: the local side of AssistKD.

Section A.2 of Chen et al., "Assisted Learning for Organizations with Limited Imbalanced Data", TMLR 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from comity.contract import Json, ModelSpec
from comity.errors import InvalidValue, TaskMismatch
from comity.privacy.leak_guard import LeakGuard
from comity.tasks.objective import Imitable, Outputs, Targets
from comity.tensors import State
from comity.training.releases import Releases, apart
from comity.training.supervised import Supervised
from comity.training.terms import OptimizerSpec
from comity.training.trajectories import Resume, Snapshot

_OWN = "own."
_OPTIMIZER = "optimizer."
_SHARED = "shared."


@dataclass(frozen=True, slots=True)
class Distillation:
    """How one model learns from another.

    Attributes:
        optimizer: The student's optimiser; new for every student.
        temperature: t, above 0.
        alpha: α, the weight of the teacher's answers beside the labels, in [0, 1].
        to_shared: Iterations in which a checkpoint of the own model is distilled into the shared one, at least 1.
        to_own_epochs: Passes over the data in which a picked model is distilled into the own one, at least 1.
        continues: Whether the own model of a round begins with that of the last one; else with its initial weights.

    Raises:
        InvalidValue: A number is out of its range.
    """

    optimizer: OptimizerSpec
    temperature: float = 1.0
    alpha: float = 0.9
    to_shared: int = 10
    to_own_epochs: int = 60
    continues: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise InvalidValue("The temperature", expected="a finite number above 0", received=self.temperature)
        if not 0 <= self.alpha <= 1:
            raise InvalidValue("The weight alpha of a teacher", expected="0 to 1", received=self.alpha)
        if self.to_shared < 1 or self.to_own_epochs < 1:
            received = f"{self.to_shared} iterations, {self.to_own_epochs} epochs"
            raise InvalidValue("The length of a distillation", expected="1 or more", received=received)


def distillation_loss(
    objective: Imitable, student: Outputs, teacher: Outputs, targets: Targets, *, temperature: float, alpha: float
) -> Float[Tensor, ""]:
    """Equation (3), as the mean over a batch; for classes -α Σ q_T(t) log q_S(t) - (1 - α) log q_S(1)[y].

    Other kinds of task have their own loss in the place of each of the two: see their `imitated`.

    Args:
        objective: What both models are for.
        student: What the student says.
        teacher: What the teacher says.
        targets: What is true.
        temperature: t, above 0. Gradients are not multiplied by t², as others do: the paper's t is 1.
        alpha: α, in [0, 1].
    """
    soft = objective.imitated(student, teacher, temperature)
    return alpha * soft + (1 - alpha) * objective.loss(student, targets, "mean")


class AssistedDistillation:
    """A party's local task whose model stays here too; what crosses is another, small enough or the same for all.

    A round's training is in two stages around that of the own model. First the model that was picked is distilled into the
    own architecture, beginning with the own model as the last round left it, or, where it does not continue, with its
    initial weights; the session's initial model has nothing to teach, and the own one begins as it is. Then each checkpoint of the own training
    is distilled into the shared architecture, beginning with the checkpoint before; checkpoint 0 is the model that was
    picked itself.

    What a training needs to go on, its own model with it, is among the tensors of the samples' `optimizer`, which stay at
    the party. Where the shared task has a leak guard, it judges by what the distillations made of the shared model.

    Args:
        own: The model of the party's own, with its data.
        shared: The model that crosses, with the same data; it is evaluated, and trained by distillation alone.
        distillation: How the two learn from each other.
        spec: What builds the own model.

    Raises:
        InvalidValue: The own model is to be private: a distillation without noise would undo that.
        TaskMismatch: Models of such a task cannot teach each other.
    """

    def __init__(self, own: Supervised, shared: Supervised, distillation: Distillation, spec: ModelSpec) -> None:
        if own.is_private or shared.is_private:
            raise InvalidValue(
                "Distillation is not covered by differential privacy", action="leave out one or the other"
            )
        if not isinstance(shared.objective, Imitable):
            raise TaskMismatch(
                "a model of one's own cannot be taught here",
                expected="a task of one head with classes, labels or numbers for a sample",
                received=type(shared.objective).__name__,
                action="leave the own model out",
            )
        self._objective: Imitable = shared.objective
        self.layout = shared.layout
        self.initial_state = shared.initial_state
        self._own = own
        self._shared = shared
        self._distillation = distillation
        self.spec = spec

    @property
    def is_guarded(self) -> bool:
        """Whether a leak guard decides what of the distillations is sent."""
        return self._shared.is_guarded

    def guard_space(self, draws: int) -> int:
        """See `Supervised.guard_space`."""
        return self._shared.guard_space(draws)

    @property
    def samples(self) -> int:
        """Number of training samples."""
        return self._shared.samples

    @property
    def judged(self) -> int:
        """Number of samples over which losses are."""
        return self._shared.judged

    def losses(self, state: State, samples: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """The loss of each sample under a shared model; see `Supervised.losses`."""
        return self._shared.losses(state, samples)

    def tested(self, state: State) -> dict[str, Json]:
        """What a test of a shared model says; see `Supervised.tested`."""
        return self._shared.tested(state)

    def try_out(self, spec: OptimizerSpec) -> None:
        """Tries both models; see `Supervised.try_out`."""
        self._shared.try_out(self._distillation.optimizer)
        self._own.try_out(spec)

    @property
    def continues(self) -> bool:
        """Whether a round's training begins with what the last one kept."""
        return self._distillation.continues

    def own_model(self, state: State, round: int, last: State | None = None) -> dict[str, Tensor]:
        """The own model that learned from a shared one: with what a round's training begins, and a session ends.

        Args:
            state: The shared model.
            round: Round that decides the order of the samples.
            last: What the training of the last round kept; None in the first.
        """
        start = _cut(last, _OWN) if last and self._distillation.continues else self._own.initial_state
        initial = self._shared.initial_state
        if all(torch.equal(tensor.cpu(), initial[name].cpu()) for name, tensor in state.items()):
            return {name: tensor.clone() for name, tensor in start.items()}
        steps = self._distillation.to_own_epochs * self._own.steps_per_epoch
        return self._distill(self._shared, state, self._own, start, steps, ("to own", round))

    def own_tested(self, own_state: State) -> dict[str, Json]:
        """What a test of an own model says; see `Supervised.tested`."""
        return self._own.tested(own_state)

    def trajectory(  # noqa: PLR0913
        self,
        state: State,
        spec: OptimizerSpec,
        *,
        iterations: int,
        period: int,
        round: int,
        resume: Resume | None = None,
        last: State | None = None,
    ) -> Iterator[Snapshot]:
        """Trains the own model and yields what its checkpoints taught the shared one, at 0, I, 2I, … below T.

        Args:
            state: The shared model to start from, or to go on from.
            spec: The own model's optimiser, made anew.
            iterations: T, at least 1.
            period: The sampling period I, at least 1.
            round: Round that the training belongs to; decides the order of the samples.
            resume: Where an earlier training stopped, `state` being its model there; what was yielded is not again.
            last: What the training of the last round kept; None in the first.

        Yields:
            Shared models, with what is needed to go on from them.
        """
        apart_from_sent, kept, _ = apart({} if resume is None else _cut(resume.optimizer, _SHARED))
        shared: dict[str, Tensor] = {name: tensor.clone() for name, tensor in {**state, **apart_from_sent}.items()}
        guard = self._shared.guard(state, kept)
        releases = None if guard is None else Releases(guard, state)
        if resume is None:
            own, own_resume = self.own_model(state, round, last), None
        else:
            own = _cut(resume.optimizer, _OWN)
            own_resume = Resume(resume.iteration, _cut(resume.optimizer, _OPTIMIZER))
        training = self._own.trajectory(own, spec, iterations=iterations, period=period, round=round, resume=own_resume)
        for sample in training:
            # Live tensors: the distillation must not see the training go on.
            teacher = {name: tensor.clone() for name, tensor in sample.state.items()}
            if sample.iteration > 0:
                steps, place = self._distillation.to_shared, ("to shared", round, sample.iteration)
                shared = self._distill(self._own, teacher, self._shared, shared, steps, place, guard)
            needed = {f"{_OWN}{name}": tensor for name, tensor in teacher.items()}
            needed |= {f"{_OPTIMIZER}{name}": tensor for name, tensor in sample.optimizer.items()}
            if releases is None:
                yield Snapshot(sample.iteration, shared, needed)
                continue
            sent = releases.snapshot(sample.iteration, shared, {}) if sample.iteration > 0 else releases.first({})
            yield replace(sent, optimizer=needed | {f"{_SHARED}{name}": each for name, each in sent.optimizer.items()})
            if sent.verdict is not None and sent.verdict.is_refused:
                return

    def _distill(  # noqa: PLR0913, PLR0917
        self,
        teacher: Supervised,
        teacher_state: State,
        student: Supervised,
        student_state: State,
        steps: int,
        place: tuple[str, *tuple[int, ...]],
        guard: LeakGuard | None = None,
    ) -> dict[str, Tensor]:
        """The student after some steps."""
        how = self._distillation

        def loss(outputs: Outputs, samples: Tensor) -> Tensor:
            answers, targets = teacher.said(teacher_state, samples), student.targets(samples)
            told = {"temperature": how.temperature, "alpha": how.alpha}
            return distillation_loss(self._objective, outputs, answers, targets, **told)

        return student.fit(student_state, how.optimizer, loss, steps=steps, place=place, guard=guard)


def _cut(state: State, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
