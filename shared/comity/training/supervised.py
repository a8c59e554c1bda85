"""Training and testing a model on a party's own samples, whatever its task says of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from comity import interruption
from comity.contract import HeadSpec, Json
from comity.data import Dataset, Splits
from comity.data.dataset import CLASSIFICATION
from comity.errors import InvalidValue
from comity.privacy import Mechanism, PrivateGradients
from comity.privacy.leak_guard import Collector, LeakGuard, Rules
from comity.tasks.classification import CrossEntropy
from comity.tasks.objective import Objective, Outputs, Targets
from comity.tensors import State
from comity.training import stepping
from comity.training.draws import require_seeded
from comity.training.evaluation import Evaluator
from comity.training.network import Network, densify
from comity.training.optimizers import build_optimizer, set_rate
from comity.training.releases import Releases, apart
from comity.training.samples import BalancedStream, PoissonStream, SampleStream, Secret
from comity.training.settings import TrainingSettings, require_together
from comity.training.stepping import Steps
from comity.training.terms import OptimizerSpec, Sampling
from comity.training.trajectories import Resume, Snapshot, sampled
from comity.training.trial import blank, try_out

BatchLoss = Callable[[Outputs, Int[Tensor, " batch"]], Float[Tensor, ""]]
"""A loss, from what a model says of a batch and the indices of its samples."""

_MEASURED = 256
"""Samples over which the layers' mean inputs are taken."""


class Supervised:
    """A party's local task: a model, and the party's samples, which stay here.

    Args:
        model: The model; its weights are where every session begins.
        splits: The party's samples, and those that it tests on.
        normalization: Per-channel mean and standard deviation of the inputs; empty tuples for none.
        batch_size: Samples in a training step.
        evaluation_batch_size: Samples in a block of an evaluation; fixed, since it decides the rounding.
        secret: The node's randomness in the session.
        device: Where data and model live.
        privacy: The noise that covers each training sample; None for none. Batches are then drawn by Poisson, and
            `batch_size` is their average. Losses and accuracies are not covered.
        rules: By which a leak guard decides what of a trajectory's models is sent; None for no guard.
        objective: What the model is trained and tested for; None for the cross-entropy of the samples' classes.
        sampling: How batches are drawn.
        judged: The samples over which losses are; None for those that are trained on.
        training: How steps are made.

    Raises:
        InvalidValue: Differential privacy does not go with the model, or with how steps are made.
    """

    def __init__(  # noqa: PLR0913
        self,
        model: nn.Module,
        splits: Splits,
        *,
        normalization: tuple[tuple[float, ...], tuple[float, ...]],
        batch_size: int,
        evaluation_batch_size: int,
        secret: Secret,
        device: torch.device,
        privacy: Mechanism | None = None,
        rules: Rules | None = None,
        objective: Objective | None = None,
        sampling: Sampling = "uniform",
        judged: Dataset | None = None,
        training: TrainingSettings | None = None,
    ) -> None:
        self._training = training or TrainingSettings()
        require_together(self._training, is_private=privacy is not None, is_guarded=rules is not None)
        self.objective: Objective = objective or CrossEntropy(HeadSpec(name="class", size=splits.train.classes))
        self._network = Network(model, device, self.objective.heads)
        self.layout = self._network.layout
        self.initial_state: State = self._network.initial_state
        self.parameters = self._network.parameters
        self.evaluation_batch_size = evaluation_batch_size
        self._device = device
        self._train_data = splits.train.to(device)
        self._test_data = splits.test.to(device) if splits.test is not None else None
        self._judged = self._train_data if judged is None else judged.to(device)
        self._classes = None if sampling == "uniform" else _classes_of(splits.train)
        self._batch_size = batch_size
        self._secret = secret
        seed = secret.seed("evaluation")
        self._evaluator = Evaluator(self._network, self.objective, normalization, evaluation_batch_size, seed, device)
        self._private = (
            None if privacy is None else PrivateGradients(self._network.module, privacy, min(batch_size, self.samples))
        )
        self._rules = rules
        self._collector = None if rules is None else Collector(self._network.module)

    @property
    def samples(self) -> int:
        """Number of training samples."""
        return len(self._train_data)

    @property
    def judged(self) -> int:
        """Number of samples over which losses are."""
        return len(self._judged)

    @property
    def model(self) -> nn.Module:
        """A model that evaluations use, with whatever weights they left."""
        return self._network.evaluated

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which a training sees as many samples as there are, or a few more."""
        return math.ceil(self.samples / min(self._batch_size, self.samples))

    @property
    def is_guarded(self) -> bool:
        """Whether a leak guard decides what of the training is sent."""
        return self._collector is not None

    def guard_space(self, draws: int) -> int:
        """Most bytes that a guard keeps between two releases.

        Args:
            draws: Samples that a trajectory draws, or fewer distinct ones.
        """
        return 0 if self._collector is None else self._collector.space(min(draws, self.samples))

    @property
    def is_private(self) -> bool:
        """Whether differential privacy covers the training."""
        return self._private is not None

    def trajectory(  # noqa: PLR0913
        self,
        state: State,
        spec: OptimizerSpec,
        *,
        iterations: int,
        period: int,
        round: int,
        resume: Resume | None = None,
        guard: LeakGuard | None = None,
    ) -> Iterator[Snapshot]:
        """Trains from `state` and yields the model at iterations 0, I, 2I, … below T, the first being `state` itself.

        The optimiser starts anew. Iterations after the last that is sampled would change nothing, so they are not made.
        Where the task has a guard, each model is as it is sent; one that is refused is the last.

        Args:
            state: Model to start from, or to go on from.
            spec: The optimiser.
            iterations: T, at least 1.
            period: The sampling period I, at least 1.
            round: Round that the training belongs to; decides the batches.
            resume: Where an earlier training stopped, `state` being its model there; what was yielded is not again.
            guard: Collects what the caller will release with it: the models are then as they are trained.

        Yields:
            Models with what is needed to go on from them. The tensors are the live ones: copy what is to be kept.
        """
        own, kept, rest = apart({} if resume is None else resume.optimizer)
        of_steps, of_optimizer = stepping.apart(rest)
        releases = None
        if guard is None and (guard := self.guard(state, kept)) is not None:
            releases = Releases(guard, self._network.on_device(state))
        self._network.load({**state, **own})
        optimizer = build_optimizer(spec, self._network.trained)
        stream, judging = self._stream(round), self._judging(round)
        steps = self._steps(of_steps)

        def step(iteration: int) -> None:
            set_rate(optimizer, spec, iteration, iterations)
            batch = stream.batch(iteration)
            self._step(steps, optimizer, batch, (round, iteration), guard)
            if steps.learns(iteration):
                answers = partial(self._answers, place=(round, iteration))
                steps.learn(judging.batch(iteration).to(self._device), batch.to(self._device), answers)

        at = None if resume is None else Resume(resume.iteration, of_optimizer)
        for plain in sampled(self._network.state, optimizer, step, iterations=iterations, period=period, resume=at):
            made = replace(plain, optimizer={**plain.optimizer, **steps.kept()})
            if releases is None:
                yield made
            elif made.iteration == 0:
                yield releases.first(made.optimizer)
            else:
                released = releases.snapshot(made.iteration, made.state, made.optimizer)
                yield released
                if released.verdict is not None and released.verdict.is_refused:
                    return

    def _stream(self, round: int) -> SampleStream | BalancedStream | PoissonStream:
        """Which samples the steps of a round see."""
        if self._private is not None:
            return PoissonStream(self.samples, self._batch_size, self._secret, round)
        if self._classes is not None:
            return BalancedStream(self._classes, self._batch_size, self._secret, round)
        return SampleStream(self.samples, self._batch_size, self._secret, round)

    def _judging(self, round: int) -> SampleStream:
        """Which samples the main head of several is judged by, where a method of weighting learns."""
        return SampleStream(self.samples, self._batch_size, self._secret, round, purpose="judging")

    def _steps(self, kept: State | None = None) -> Steps:
        """What makes the steps of a training."""
        return Steps(self._network.trained, self.objective, self._training, self._device, kept)

    def guard(
        self, state: State, kept: State | None = None, leaving: Collection[str] | None = None
    ) -> LeakGuard | None:
        """A leak guard of trainings of this task's model; None where it has none.

        Args:
            state: The model that they begin with.
            kept: What an earlier guard kept, to go on from there.
            leaving: Names of the parameters that leave; None for all.
        """
        if self._collector is None or self._rules is None:
            return None
        if kept:
            return LeakGuard(self._collector, self._rules, kept=kept, leaving=leaving)
        self._network.load(state)
        self._network.module.eval()
        some = SampleStream(self.samples, _MEASURED, self._secret, purpose="mean inputs").batch(0).to(self._device)
        means = self._collector.means(
            lambda: self._network.forward(self._evaluator.prepared(self._train_data, some), self._evaluator.seed)
        )
        self._network.load(state)
        return LeakGuard(self._collector, self._rules, means, leaving=leaving)

    def try_out(self, spec: OptimizerSpec) -> None:
        """Does once what a session does many times: a step, an evaluation, and a way over the wire.

        Args:
            spec: The optimiser.

        Raises:
            InvalidValue: The model does not give a score for each class, nothing of it is trained, or it evaluates otherwise
                after it has crossed.
            TaskMismatch: It answers otherwise than another task wants.
            TrainingDiverged: One step makes weights that are not finite.
        """
        data = self._train_data if self.samples else self._test_data
        if data is None or not len(data):
            data = blank(self._train_data, self._device)
        some = torch.arange(min(self._batch_size, self.evaluation_batch_size, len(data)), device=self._device)

        def step() -> None:
            with torch.no_grad():
                require_seeded(lambda: self._answers(some, "dropout", place=(0, 0)))
            self._network.load(self.initial_state)
            optimizer = build_optimizer(spec, self._network.trained)
            self._step(self._steps(), optimizer, some.cpu(), (0, 0), None)

        try_out(self._evaluator, data, some, step if self.samples else None)

    def _step(
        self,
        steps: Steps,
        optimizer: torch.optim.Optimizer,
        batch: Tensor,
        place: tuple[int, int],
        guard: LeakGuard | None,
    ) -> None:
        indices, answers = batch.to(self._device), partial(self._answers, place=place)
        if self._private is None:
            steps.step(optimizer, indices, answers, guard)
            return

        def losses() -> Tensor:
            return self.objective.loss(*answers(indices, "dropout"), "none")

        optimizer.zero_grad(set_to_none=True)
        with nullcontext() if guard is None else guard.batch(indices):
            seed = self._secret.seed("privacy noise", *place)
            self._private.compute(optimizer, losses if len(indices) else None, seed)
        densify(self._network.trained)
        optimizer.step()

    def _answers(
        self, indices: Int[Tensor, " batch"], purpose: str, *, place: tuple[int, int]
    ) -> tuple[Outputs, Targets]:
        """What the model says of training samples in a round and an iteration, and what is to be said."""
        inputs = self._evaluator.prepared(self._train_data, indices)
        # Opacus's hooks expect gradients of the inputs; torch warns where there are none.
        inputs.requires_grad_(self._private is not None)
        outputs = self._network.forward(inputs, self._secret.seed(purpose, *place))
        return outputs, self._train_data.targets_of(indices)

    def fit(
        self,
        state: State,
        spec: OptimizerSpec,
        loss: BatchLoss,
        *,
        steps: int,
        place: tuple[str, *tuple[int, ...]],
        guard: LeakGuard | None = None,
    ) -> dict[str, Tensor]:
        """Trains on another loss, to the end, and returns the model.

        Args:
            state: Model to start from.
            spec: The optimiser, made anew.
            loss: Of what the model says of a batch.
            steps: Steps, at or above 0.
            place: What it is for, and when: decides the batches.
            guard: Collects what the caller will release with it.
        """
        self._network.load(state)
        optimizer = build_optimizer(spec, self._network.trained)
        purpose, *when = place
        stream = SampleStream(self.samples, self._batch_size, self._secret, *when, purpose=f"batches, {purpose}")
        for step in range(steps):
            interruption.point()
            indices = stream.batch(step).to(self._device)
            optimizer.zero_grad(set_to_none=True)
            with nullcontext() if guard is None else guard.batch(indices):
                seed = self._secret.seed(f"dropout, {purpose}", *when, step)
                outputs = self._network.forward(self._evaluator.prepared(self._train_data, indices), seed)
                loss(outputs, indices).backward()
            densify(self._network.trained)
            optimizer.step()
        return {name: tensor.clone() for name, tensor in self._network.state().items()}

    def said(self, state: State, samples: Int[Tensor, " n"]) -> Outputs:
        """What a model says of training samples, in evaluation mode."""
        found = self._evaluator.outputs(self._network.on_device(state), self._train_data, samples.to(self._device))
        # Copies that autograd may keep.
        return found.clone() if isinstance(found, Tensor) else {name: each.clone() for name, each in found.items()}

    def targets(self, samples: Int[Tensor, " n"]) -> Targets:
        """What is to be said of training samples, where the data are."""
        return self._train_data.targets_of(samples.to(self._device))

    def losses(self, state: State, samples: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """The loss of each sample under a model, in evaluation mode.

        Args:
            state: The model.
            samples: Indices of the samples; None for all, in the order of the data.

        Returns:
            Losses at or above 0 in float64, on the CPU, in the order of `samples`.
        """
        return self._evaluator.losses(state, self._judged, samples)

    def tested(self, state: State) -> dict[str, Json]:
        """What a test of a model says on the test samples, by metric; empty where there are none.

        Beside the numbers of the kind of task there is `loss`, the mean of the samples' losses.
        """
        data = self._test_data
        if data is None or not len(data):
            return {}
        return self._evaluator.tested(state, data)

    def test_accuracy(self, state: State) -> float | None:
        """Share of the test samples that a classifier classifies right, 0 to 1; None where there are no test samples."""
        return None if self._test_data is None else self._evaluator.accuracy(state, self._test_data)


def _classes_of(data: Dataset) -> Int[Tensor, " samples"]:
    """The class of each sample.

    Raises:
        InvalidValue: They have none.
    """
    if data.task != CLASSIFICATION:
        raise InvalidValue(
            "batches cannot be drawn by classes",
            expected='sampling = "uniform" for samples without classes',
            received=f"balanced, for {data.task}",
            action="leave sampling out of session.terms",
        )
    return data.labels
