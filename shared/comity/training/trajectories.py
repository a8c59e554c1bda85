"""What every local training is: iterations, of which some models are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from comity import interruption
from comity.privacy.leak_guard import Verdict
from comity.tensors import State
from comity.training.optimizers import optimizer_state, restore_optimizer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model of a training, with what is needed to go on from it.

    Attributes:
        iteration: Iterations behind it.
        state: Its state dict, as it is sent.
        optimizer: The optimiser's tensors, and whatever else the training needs to go on; they stay at the party.
        verdict: What the leak guard says of it; None without a leak guard.
    """

    iteration: int
    state: State
    optimizer: State
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a training goes on.

    Attributes:
        iteration: Iterations that were made.
        optimizer: What the snapshot there had under this name.
    """

    iteration: int
    optimizer: State


def sampled(
    state: Callable[[], State],
    optimizer: torch.optim.Optimizer,
    step: Callable[[int], None],
    *,
    iterations: int,
    period: int,
    resume: Resume | None,
) -> Iterator[Snapshot]:
    """Trains, and yields the model at iterations 0, I, 2I, … below T.

    Iterations after the last that is sampled would change nothing, so they are not made.

    Args:
        state: Gives the model's live tensors, as they are.
        optimizer: The model's optimiser, new.
        step: Makes the iteration of a number, which alone decides what it draws.
        iterations: T, at least 1.
        period: The sampling period I, at least 1.
        resume: Where an earlier training stopped; what was yielded is not again.

    Yields:
        Models with what is needed to go on from them. The tensors are the live ones: copy what is to be kept.
    """
    if resume is not None:
        restore_optimizer(optimizer, resume.optimizer)
    first = 0 if resume is None else resume.iteration
    for iteration in range(first, iterations):
        if iteration % period == 0:
            if resume is None or iteration > first:
                yield Snapshot(iteration, state(), optimizer_state(optimizer))
            if iteration + period >= iterations:
                return
        interruption.point()
        step(iteration)
