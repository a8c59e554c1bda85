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
from comity.errors import InvalidValue, NonFiniteValue, TrainingDiverged
from comity.privacy import Mechanism, PrivateGradients
from comity.privacy.leak_guard import Collector, LeakGuard, Rules
from comity.tasks.classification import CrossEntropy
from comity.tasks.objective import Objective, Outputs, Targets, sole
from comity.tensors import State
from comity.training import stepping
from comity.training.network import Network, densify
from comity.training.optimizers import build_optimizer, set_rate
from comity.training.releases import Releases, apart
from comity.training.samples import BalancedStream, PoissonStream, SampleStream, Secret
from comity.training.settings import TrainingSettings
from comity.training.stepping import Steps
from comity.training.terms import OptimizerSpec, Sampling
from comity.training.trajectories import Resume, Snapshot, sampled

BatchLoss = Callable[[Float[Tensor, "batch classes"], Int[Tensor, " batch"]], Float[Tensor, ""]]
"""A loss, from the logits of a batch and the indices of its samples."""

_CLASSES = HeadSpec(name="class", size=1)

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
        _require_together(self._training, is_private=privacy is not None, is_guarded=rules is not None)
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
        self._normalization = normalization
        self._batch_size = batch_size
        self._secret = secret
        # What a model draws when it is evaluated is part of the question that an evaluation answers: always the same.
        self._evaluation = secret.seed("evaluation")
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
            lambda: self._network.forward(self._prepared(self._train_data, some), self._evaluation)
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
        network, data = self._network, self._train_data if self.samples else self._test_data
        is_of_classes = isinstance(self.objective, CrossEntropy)
        if data is None or not len(data):
            data = Dataset(
                torch.zeros(2, *self._train_data.input_shape, device=self._device),
                torch.zeros(2).long(),
                1.0,
                self._train_data.classes,
            )
        some = torch.arange(min(self._batch_size, self.evaluation_batch_size, len(data)), device=self._device)
        network.load(self.initial_state)
        first = self._outputs(network.on_device(self.initial_state), data, some)
        wanted = [len(some), data.classes]
        if data.task != CLASSIFICATION:
            self.objective.loss(first, data.targets_of(some), "none")
        elif is_of_classes and (
            not isinstance(first, Tensor) or list(first.shape) != wanted or not first.is_floating_point()
        ):
            raise InvalidValue(
                "the model says something else than a score for each class",
                expected=f"floats {wanted} for {len(some)} samples",
                received=f"{first.dtype} {list(first.shape)}" if isinstance(first, Tensor) else "a dict",
                action="give its last layer as many outputs as there are classes, and no softmax",
            )
        if self.samples:
            if not self.parameters:
                raise InvalidValue(
                    "nothing of the model is trained",
                    expected="parameters that want gradients",
                    received="none",
                    action="correct session.model.trainable, or the factory",
                )
            optimizer = build_optimizer(spec, network.trained)
            self._step(self._steps(), optimizer, some.cpu(), (0, 0), None)
            if not any(each.grad is not None for each in network.trained):
                raise InvalidValue("a step moves nothing of the model", expected="gradients", received="none")
        state = {name: each.cpu() for name, each in network.state().items()}
        try:
            blob = self.layout.pack(state)
            self.layout.verify(blob)
        except NonFiniteValue as error:
            raise TrainingDiverged(
                "one step makes weights that are not finite",
                expected="finite weights",
                received=str(error),
                action="lower the session's learning_rate",
            ) from error
        answers = [self._outputs(network.on_device(each), data, some) for each in (state, self.layout.view(blob.data))]
        if not _equal(*answers):
            raise InvalidValue(
                "the model answers otherwise after it has crossed",
                expected="answers that follow from its state dict and the inputs alone",
                received="others",
                action="keep what it remembers in buffers, or not at all",
            )
        network.load(self.initial_state)

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
        inputs = self._prepared(self._train_data, indices)
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
            loss: Of a batch's logits.
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
                outputs = self._network.forward(self._prepared(self._train_data, indices), seed)
                loss(sole(outputs, _CLASSES), indices).backward()
            densify(self._network.trained)
            optimizer.step()
        return {name: tensor.clone() for name, tensor in self._network.state().items()}

    def logits(self, state: State, samples: Int[Tensor, " n"]) -> Float[Tensor, "n classes"]:
        """Logits of training samples under a model, in evaluation mode."""
        # A copy that autograd may keep.
        return self._logits(self._network.on_device(state), self._train_data, samples.to(self._device)).clone()

    def labels(self, samples: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Labels of training samples, where the data are."""
        return self._train_data.labels[samples.to(self._device)]

    def losses(self, state: State, samples: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """The loss of each sample under a model, in evaluation mode.

        Args:
            state: The model.
            samples: Indices of the samples; None for all, in the order of the data.

        Returns:
            Losses at or above 0 in float64, on the CPU, in the order of `samples`.
        """
        order = torch.arange(self.judged) if samples is None else samples
        weights = self._network.on_device(state)
        parts = [
            self.objective.loss(self._outputs(weights, self._judged, block), self._judged.targets_of(block), "none")
            for block in order.to(self._device).split(self.evaluation_batch_size)
        ]
        return torch.cat(parts).double().cpu()

    def tested(self, state: State) -> dict[str, Json]:
        """What a test of a model says on the test samples, by metric; empty where there are none.

        Beside the numbers of the kind of task there is `loss`, the mean of the samples' losses.
        """
        data = self._test_data
        if data is None or not len(data):
            return {}
        weights, tally, total = self._network.on_device(state), self.objective.tally(), 0.0
        for block in torch.arange(len(data), device=self._device).split(self.evaluation_batch_size):
            outputs, targets = self._outputs(weights, data, block), data.targets_of(block)
            tally.add(outputs, targets)
            total += float(self.objective.loss(outputs, targets, "none").double().sum())
        loss = total / len(data)
        return {**tally.results(), "loss": loss if math.isfinite(loss) else None}

    def test_accuracy(self, state: State) -> float | None:
        """Share of the test samples that a classifier classifies right, 0 to 1; None where there are no test samples."""
        if self._test_data is None:
            return None
        weights = self._network.on_device(state)
        right = 0
        for block in torch.arange(len(self._test_data), device=self._device).split(self.evaluation_batch_size):
            predicted = self._logits(weights, self._test_data, block).argmax(dim=1)
            right += int((predicted == self._test_data.labels[block]).sum())
        return right / len(self._test_data)

    def _outputs(self, weights: dict[str, Tensor], data: Dataset, indices: Int[Tensor, " batch"]) -> Outputs:
        interruption.point()
        return self._network.evaluate(weights, self._prepared(data, indices), self._evaluation)

    def _logits(
        self, weights: dict[str, Tensor], data: Dataset, indices: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        """The outputs of a classifier."""
        return sole(self._outputs(weights, data, indices), _CLASSES)

    def _prepared(self, data: Dataset, indices: Int[Tensor, " batch"]) -> Float[Tensor, "batch ..."]:
        return data.prepare(data.inputs[indices], *self._normalization)


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


def _require_together(training: TrainingSettings, *, is_private: bool, is_guarded: bool) -> None:
    """Checks that steps can be made so.

    Raises:
        InvalidValue: They cannot.
    """
    if is_private and not training.is_plain:
        raise InvalidValue(
            "noise covers one loss of each sample, in one pass",
            expected="a [training] table without precision, micro_batch and weighting",
            received=", ".join(sorted(training.model_dump(exclude_defaults=True))),
            action="leave them out, or train without differential privacy",
        )
    if is_guarded and training.weighting is not None and training.micro_batch is not None:
        raise InvalidValue(
            "a leak guard sees a batch whose heads are weighed as a whole",
            expected="training.weighting or training.micro_batch",
            received="both",
            action="leave micro_batch out",
        )


def _equal(one: Outputs, other: Outputs) -> bool:
    """Whether two answers are the same to the last bit."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
