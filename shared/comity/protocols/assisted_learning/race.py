"""A choice among checkpoints by statistics: fewer forward passes than an exact one, and nearly always the same choice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from comity.protocols.assisted_learning.algorithm import JointLoss, Loss, Selection
from comity.protocols.assisted_learning.choices import Objective

LEAST_SAMPLES = 256
"""Samples on which every checkpoint is evaluated before the first is dropped."""
STANDARD_ERRORS = 4.0
"""A checkpoint is dropped when it lies further behind the leader than so many standard errors."""


@dataclass(slots=True)
class _Runner:
    """A checkpoint in the race."""

    others: tuple[float, ...]
    losses: Float[Tensor, " samples"]
    done: int


class Race:
    """Picks a checkpoint of least global loss among those that a race leaves.

    All are evaluated on the same samples in a random order, block by block. After each block, those whose estimated total
    lies behind the leader's by more than `STANDARD_ERRORS` standard errors of the paired differences drop out, but never
    the checkpoint of index 0, so that no choice is worse than it. Whatever stays to the end is evaluated on every sample,
    and among these the choice is exact. It depends on the samples' order, and not on when checkpoints came.

    Args:
        evaluate: Per-sample losses at or above 0 of a checkpoint (by index) on the receiver's samples (by index).
        order: The receiver's samples in random order.
        block: Samples in a block.
        objective: How the parties' losses are added.

    Examples:
        >>> losses = torch.rand(5, 1024, generator=torch.Generator().manual_seed(0)) + torch.tensor([[2, 1, 0, 1, 2.0]]).T
        >>> order = torch.randperm(1024, generator=torch.Generator().manual_seed(1))
        >>> race = Race(lambda index, where: losses[index, where], order, block=256, objective="mean")
        >>> for index in range(5):
        ...     race.add(index, Loss(0.0, 1))
        >>> found = race.select()
        >>> found.index, found.work < 0.7
        (2, True)
    """

    def __init__(
        self,
        evaluate: Callable[[int, Int[Tensor, " block"]], Float[Tensor, " block"]],
        order: Int[Tensor, " samples"],
        *,
        block: int,
        objective: Objective,
    ) -> None:
        self._evaluate = evaluate
        self._order = order
        self._block = block
        self._blocks = order.split(block)
        self._objective: Objective = objective
        self._runners: dict[int, _Runner] = {}
        self._racing: list[int] = []
        self._evaluated = 0
        self._unknown = 0
        self._judged = 0

    def __len__(self) -> int:
        """Checkpoints added so far."""
        return len(self._runners)

    def add(self, index: int, others: Loss | JointLoss, known: Float[Tensor, " samples"] | None = None) -> None:
        """Adds a checkpoint; see `Screening.add`."""
        losses = torch.empty(len(self._order), dtype=torch.float64) if known is None else known
        done = 0 if known is None else len(self._blocks)
        self._runners[index] = _Runner(others.parts(self._objective), losses, done)
        self._racing.append(index)
        self._unknown += known is None

    def advance(self, *, whole: bool = False) -> bool:
        """Evaluates one block of one checkpoint.

        Args:
            whole: Whether the trajectory is there to its end; until then nobody is dropped, so that the choice does not
                follow the order in which checkpoints came.

        Returns:
            False when there is nothing more to evaluate.
        """
        done, index = self._hindmost()
        if whole and done > self._judged:
            self._judged = done
            self._drop(done * self._block)
            done, index = self._hindmost()
        if done == len(self._blocks) or (done * self._block >= LEAST_SAMPLES and not whole):
            return False
        runner = self._runners[index]
        samples = self._blocks[done]
        runner.losses[samples] = self._evaluate(index, samples).to(torch.float64)
        runner.done += 1
        self._evaluated += len(samples)
        return True

    def select(self) -> Selection:
        """Finishes the race of everything added and returns the choice.

        Raises:
            ValueError: No checkpoint was added.
        """
        while self.advance(whole=True):
            pass
        if not self._racing:
            raise ValueError("a trajectory holds at least checkpoint 0")
        # Summed in the order of the data, as an exact choice is.
        totals = {index: self._total(self._runners[index]) for index in self._racing}
        index = min(totals, key=lambda index: (totals[index], index))
        everything = len(self._order) * self._unknown
        work = self._evaluated / everything if everything else 0.0
        return Selection(index, totals[index], self._runners[index].losses, work)

    def _hindmost(self) -> tuple[int, int]:
        """Blocks behind whoever has the fewest, and its index."""
        return min(((self._runners[each].done, each) for each in self._racing), default=(len(self._blocks), 0))

    def _drop(self, seen: int) -> None:
        """Drops who is behind after a number of samples."""
        if seen < LEAST_SAMPLES or seen >= len(self._order):
            return
        samples = self._order[:seen]
        estimates = {index: self._estimate(self._runners[index], samples) for index in self._racing}
        leader = min(estimates, key=lambda index: (estimates[index], index))
        behind = [index for index in self._racing if index not in {0, leader}]
        dropped = {index for index in behind if self._is_behind(index, leader, samples)}
        self._racing = [index for index in self._racing if index not in dropped]

    def _is_behind(self, index: int, leader: int, samples: Int[Tensor, " seen"]) -> bool:
        one, other = self._runners[index], self._runners[leader]
        gaps = one.losses[samples] - other.losses[samples]
        seen, count = len(samples), len(self._order)
        # Samples are drawn without putting back: those that are left are all that is uncertain.
        error = math.sqrt((1 - seen / count) / seen) * float(gaps.std())
        behind = math.fsum(one.others) - math.fsum(other.others) + self._scaled(float(gaps.mean()))
        return behind > STANDARD_ERRORS * self._scaled(error)

    def _estimate(self, runner: _Runner, samples: Int[Tensor, " seen"]) -> float:
        return math.fsum(runner.others) + self._scaled(float(runner.losses[samples].mean()))

    def _scaled(self, mean: float) -> float:
        """What a mean over this party's samples adds to the global loss."""
        return Loss(mean * len(self._order), len(self._order)).value(self._objective)

    def _total(self, runner: _Runner) -> float:
        own = Loss(float(runner.losses.sum()), len(self._order))
        return math.fsum((*runner.others, *own.parts(self._objective)))
