"""How e and r are trained in one place: e on all samples, r on whether m and e are right.

Wu et al., "Learning to Help in Multi-Class Settings", ICLR 2025, trains both in turns on the same samples. A classifier is
right on what it was fitted to, and r would learn to ask always. So whether e is right is taken from folds that left the
sample out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from comity import interruption
from comity.errors import InvalidValue, TrainingDiverged
from comity.privacy.leak_guard import LeakGuard
from comity.protocols.learning_to_help.algorithm import rejector_loss, server_loss
from comity.protocols.learning_to_help.choices import Form
from comity.randomness import generator
from comity.training import SampleStream, Secret


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


def fit(
    model: nn.Module,
    inputs: Float[Tensor, "samples ..."],
    loss: Callable[[Tensor, Tensor], Float[Tensor, " batch"]],
    fitting: Fitting,
    stream: SampleStream,
    guard: LeakGuard | None = None,
) -> nn.Module:
    """Trains a model where it stands.

    Args:
        model: The model; it is left in evaluation mode.
        inputs: What it takes.
        loss: The loss of each sample, from the model's outputs and the samples' indices.
        fitting: How.
        stream: Which samples each step sees.
        guard: Looks on, where what comes of it is to leave.

    Returns:
        The model.

    Raises:
        TrainingDiverged: A loss is NaN or infinite.
    """
    steps = fitting.epochs * math.ceil(len(inputs) / fitting.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=fitting.learning_rate, weight_decay=fitting.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    model.train()
    for step in range(steps):
        interruption.point()
        batch = stream.batch(step).to(inputs.device)
        optimizer.zero_grad()
        with nullcontext() if guard is None else guard.batch(batch):
            value = loss(model(inputs[batch]), batch).mean()
            if bool(torch.isfinite(value)):
                value.backward()
        if not bool(torch.isfinite(value)):
            raise TrainingDiverged(
                "a model's loss",
                expected="finite values",
                received=float(value.detach()),
                action="lower the learning rate",
            )
        optimizer.step()
        schedule.step()
    return model.eval()


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
    stream = SampleStream(len(inputs), fitting.batch_size, secret, *place, purpose="server")
    return fit(model, inputs, lambda logits, batch: server_loss(logits, labels[batch]), fitting, stream)


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
    stream = SampleStream(len(inputs), fitting.batch_size, secret, *place, purpose="rejector")

    def loss(logits: Tensor, batch: Tensor) -> Tensor:
        return rejector_loss(logits, local_correct[batch], server_correct[batch], costs.c_e, costs.c_1, form=costs.form)

    return fit(model, inputs, loss, fitting, stream, guard)


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
