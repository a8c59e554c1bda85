"""How e and r are trained in one place: e on all samples, r on whether m and e are right.

Wu et al., "Learning to Help in Multi-Class Settings", ICLR 2025, trains both in turns on the same samples. A classifier is
right on what it was fitted to, and r would learn to ask always. So whether e is right is taken from folds that left the
sample out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from comity import interruption
from comity.errors import InvalidValue, TrainingDiverged
from comity.privacy.leak_guard import LeakGuard
from comity.protocols.learning_to_help.algorithm import rejector_loss, server_loss
from comity.protocols.learning_to_help.choices import Form
from comity.randomness import generator, seeded
from comity.training import SampleStream, Secret
from comity.training.optimizers import optimizer_state, restore_optimizer


@dataclass(frozen=True, slots=True)
class Fitting:
    """How one model is fitted: AdamW, its learning rate falling to 0 by a cosine.

    Attributes:
        epochs: As many steps as make so many passes; every batch is a draw of its own.
        batch_size: Samples a step.
        learning_rate: At the first step.
        weight_decay: Of AdamW.
    """

    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4

    def steps(self, samples: int) -> int:
        """How many steps of so many samples it takes."""
        return self.epochs * -(-samples // self.batch_size)


@dataclass(frozen=True, slots=True)
class Costs:
    """What asking costs, and a wrong answer from the server beside it; see `algorithm`.

    Attributes:
        c_e: In [0, 1).
        c_1: 0 or more.
        form: Of the rejector's loss.
    """

    c_e: float
    c_1: float
    form: Form = "shifted"


class Training:
    """A training that can stop between two steps, and go on from what it kept.

    Args:
        model: The model, which is trained where it stands.
        inputs: What it takes.
        loss: The loss of each sample, from the model's outputs and the samples' indices.
        fitting: How.
        stream: Which samples each step sees.
        seed: Seeds what the model draws in a step, in dropout for example, by the step's number from 0.
        guard: Looks on, where what comes of it is to leave.

    Attributes:
        step: How many steps are done.
        steps: How many there are.
        inputs: As given.
        guard: As given; may be set before the first step.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        model: nn.Module,
        inputs: Float[Tensor, "samples ..."],
        loss: Callable[[Tensor, Tensor], Float[Tensor, " batch"]],
        fitting: Fitting,
        stream: SampleStream,
        seed: Callable[[int], int],
        guard: LeakGuard | None = None,
    ) -> None:
        self.model = model
        self._loss = loss
        self.steps = fitting.steps(len(inputs))
        self.step = 0
        self.inputs = inputs
        self.guard = guard
        self._stream = stream
        self._seed = seed
        self._rate = fitting.learning_rate
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=fitting.learning_rate, weight_decay=fitting.weight_decay
        )

    def kept(self) -> dict[str, Tensor]:
        """What is needed to go on from here, the model's weights among it."""
        state = {f"{_MODEL}{name}": tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        return state | {f"{_OPTIMIZER}{name}": tensor for name, tensor in optimizer_state(self._optimizer).items()}

    def restore(self, step: int, kept: Mapping[str, Tensor]) -> None:
        """Goes on from a step, with what was kept there."""
        self.model.load_state_dict(model_in(kept))
        restore_optimizer(self._optimizer, _under(kept, _OPTIMIZER))
        self.step = step

    def advance(self, to: int) -> None:
        """Trains up to a step, or to the last one.

        Raises:
            TrainingDiverged: A loss is NaN or infinite.
        """
        self.model.train()
        while self.step < min(to, self.steps):
            interruption.point()
            self._one(self._stream.batch(self.step).to(self.inputs.device))
            self.step += 1
        self.model.eval()

    def finish(self) -> nn.Module:
        """Trains to the end; the model, in evaluation mode."""
        self.advance(self.steps)
        return self.model.eval()

    def _one(self, batch: Tensor) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = 0.5 * self._rate * (1 + math.cos(math.pi * self.step / self.steps))
        self._optimizer.zero_grad()
        with nullcontext() if self.guard is None else self.guard.batch(batch):
            with seeded(self._seed(self.step), self.inputs.device):
                said = self.model(self.inputs[batch])
            value = self._loss(said, batch).mean()
            if bool(torch.isfinite(value)):
                value.backward()
        if not bool(torch.isfinite(value)):
            raise TrainingDiverged(
                "a model's loss",
                expected="finite values",
                received=float(value.detach()),
                action="lower the learning rate",
            )
        self._optimizer.step()


_MODEL, _OPTIMIZER = "model.", "optimizer."


@dataclass(frozen=True)
class OwnRejector:
    """A client's own training of r.

    Attributes:
        training: The training; it goes by `correct` as it is at each step.
        steps: The samples' features as they cross, on the CPU.
        seen: The same as e takes them.
        labels: The samples' classes.
        correct: Whether e is right on them.
    """

    training: Training
    steps: Tensor
    seen: Tensor
    labels: Tensor
    correct: Tensor

    def answered(self, classes: Tensor) -> None:
        """Takes note of what e says of the samples."""
        self.correct.copy_(classes.to(self.labels.device) == self.labels)


def model_in(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's weights in what a training kept."""
    return _under(kept, _MODEL)


def _under(kept: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in kept.items() if name.startswith(prefix)}


def server_training(
    model: nn.Module,
    inputs: Float[Tensor, "samples ..."],
    labels: Int[Tensor, " samples"],
    fitting: Fitting,
    secret: Secret,
    *place: int,
    guard: LeakGuard | None = None,
) -> Training:
    """The training of e by L_1 on all samples; see `fit_server`.

    Args:
        model: See `fit_server`.
        inputs: See `fit_server`.
        labels: See `fit_server`.
        fitting: See `fit_server`.
        secret: See `fit_server`.
        place: See `fit_server`.
        guard: Looks on, where e is to leave.
    """
    stream = SampleStream(len(inputs), fitting.batch_size, secret, *place, purpose="server")
    seed = partial(secret.seed, "dropout, server", *place)
    return Training(
        model, inputs, lambda logits, batch: server_loss(logits, labels[batch]), fitting, stream, seed, guard
    )


def rejector_training(  # noqa: PLR0913
    model: nn.Module,
    inputs: Float[Tensor, "samples ..."],
    local_correct: Bool[Tensor, " samples"],
    server_correct: Bool[Tensor, " samples"],
    *,
    costs: Costs,
    fitting: Fitting,
    secret: Secret,
    place: Sequence[int] = (),
    guard: LeakGuard | None = None,
) -> Training:
    """The training of r by L_2; see `fit_rejector`. Between two steps `server_correct` may change in place, as e does.

    Args:
        model: See `fit_rejector`.
        inputs: See `fit_rejector`.
        local_correct: See `fit_rejector`.
        server_correct: See `fit_rejector`.
        costs: See `fit_rejector`.
        fitting: See `fit_rejector`.
        secret: See `fit_rejector`.
        place: See `fit_rejector`.
        guard: See `fit_rejector`.
    """
    stream = SampleStream(len(inputs), fitting.batch_size, secret, *place, purpose="rejector")

    def loss(logits: Tensor, batch: Tensor) -> Tensor:
        return rejector_loss(logits, local_correct[batch], server_correct[batch], costs.c_e, costs.c_1, form=costs.form)

    seed = partial(secret.seed, "dropout, rejector", *place)
    return Training(model, inputs, loss, fitting, stream, seed, guard)


def fit_server(
    model: nn.Module,
    inputs: Float[Tensor, "samples ..."],
    labels: Int[Tensor, " samples"],
    fitting: Fitting,
    secret: Secret,
    *place: int,
) -> nn.Module:
    """Trains e by L_1 on all samples.

    Args:
        model: e, with its initial weights.
        inputs: What it takes, in the range that queries have.
        labels: The samples' classes.
        fitting: How.
        secret: The server's randomness.
        place: What tells this training from others in the session.
    """
    return server_training(model, inputs, labels, fitting, secret, *place).finish()


def held_out_correct(
    build: Callable[[], nn.Module],
    inputs: Float[Tensor, "samples ..."],
    labels: Int[Tensor, " samples"],
    fitting: Fitting,
    secret: Secret,
    *,
    folds: int = 3,
) -> Bool[Tensor, " samples"]:
    """Whether an e that did not see a sample is right on it, for all samples: 1[e = y] by cross-fitting.

    Args:
        build: Makes an e with its initial weights.
        inputs: What it takes.
        labels: The samples' classes.
        fitting: How each is trained.
        secret: The server's randomness.
        folds: Into how many parts the samples fall, at least 2 and at most one for each sample.

    Raises:
        InvalidValue: There are not so many samples, or the folds are out of range.
    """
    if not 2 <= folds <= len(inputs):
        raise InvalidValue("Folds", expected=f"2 to {len(inputs)}, the number of samples", received=folds)
    shuffled = torch.randperm(len(inputs), generator=generator(secret.seed("folds"))).to(inputs.device)
    correct = torch.empty(len(inputs), dtype=torch.bool, device=inputs.device)
    for fold in range(folds):
        left_out = shuffled[fold::folds]
        used = torch.cat([shuffled[other::folds] for other in range(folds) if other != fold])
        model = fit_server(build(), inputs[used], labels[used], fitting, secret, 1 + fold)
        correct[left_out] = predictions(model, inputs[left_out]) == labels[left_out]
    return correct


def fit_rejector(  # noqa: PLR0913
    model: nn.Module,
    inputs: Float[Tensor, "samples ..."],
    local_correct: Bool[Tensor, " samples"],
    server_correct: Bool[Tensor, " samples"],
    *,
    costs: Costs,
    fitting: Fitting,
    secret: Secret,
    place: Sequence[int] = (),
    guard: LeakGuard | None = None,
) -> nn.Module:
    """Trains r by L_2.

    Args:
        model: r, with its initial weights.
        inputs: What it takes; samples of which m has not seen any.
        local_correct: Whether m is right on them.
        server_correct: Whether e is, without having seen them.
        costs: What asking costs.
        fitting: How.
        secret: The randomness of who trains it.
        place: What tells this training from others in the session.
        guard: Looks on, where r is to leave.
    """
    correct = (local_correct, server_correct)
    options: Any = {"costs": costs, "fitting": fitting, "secret": secret, "place": place, "guard": guard}
    return rejector_training(model, inputs, *correct, **options).finish()


def predictions(
    model: nn.Module, inputs: Float[Tensor, "samples ..."], batch_size: int = 1024
) -> Int[Tensor, " samples"]:
    """The class of the greatest output for each sample."""
    return outputs(model, inputs, batch_size).argmax(dim=1)


def outputs(
    model: nn.Module, inputs: Float[Tensor, "samples ..."], batch_size: int = 1024
) -> Float[Tensor, "samples outputs"]:
    """A model's outputs in evaluation mode, in blocks."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(block) for block in inputs.split(batch_size)])
