"""AssistDeep's own mathematics, without training, network or disk: losses come in, choices go out.

Algorithm 1 of Chen et al., "Assisted Learning for Organizations with Limited Imbalanced Data", TMLR 2023.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from comity.protocols.assisted_learning.choices import Objective, Order

ABANDON_MARGIN = 1e-6
"""A checkpoint is abandoned only when its lower bound passes the best total by this share: far above the rounding of a
float64 sum of float32 losses, far below any gap that matters."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A party's loss over all of its samples.

    Attributes:
        sum: Sum over the samples.
        count: Number of samples, at least 1.

    Examples:
        >>> Loss(12.0, 4).value("sum"), Loss(12.0, 4).value("mean")
        (12.0, 3.0)
    """

    sum: float
    count: int

    def value(self, objective: Objective) -> float:
        """What this loss adds to the global loss."""
        return self.sum if objective == "sum" else self.sum / self.count

    def parts(self, objective: Objective) -> tuple[float, ...]:
        """Numbers whose exact sum is what this loss adds to the global loss: the one."""
        return (self.value(objective),)


@dataclass(frozen=True, slots=True)
class JointLoss:
    """What the losses of several parties add to the global loss together, exactly.

    Adding floats rounds, and so depends on the order. Here nothing is rounded, so that a model has one global loss,
    whoever adds it up, and Proposition 1 holds with plain `<=` however many parties there are.

    Attributes:
        numbers: Their exact sum is the loss. Each is what the ones before it lack, rounded to the nearest float: they
            follow from the sum alone, and tell nothing of its terms.
    """

    numbers: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> JointLoss:
        """The sum of finite values.

        Examples:
            >>> JointLoss.of([0.1] * 10).numbers[0], sum([0.1] * 10)
            (1.0, 0.9999999999999999)
        """
        left = list(values)
        numbers: list[float] = []
        while number := math.fsum(left):
            numbers.append(number)
            left.append(-number)
        return cls(tuple(numbers))

    def parts(self, objective: Objective) -> tuple[float, ...]:
        """Numbers whose exact sum is what this loss adds to the global loss, in which the objective is contained."""
        del objective
        return self.numbers


def training_order(providers: Sequence[str], round: int, order: Order, trainers: int) -> tuple[str, ...]:
    """Who trains in a round, one after the other.

    Args:
        providers: All providers, as the contract lists them; at least 1.
        round: The round, from 1.
        order: Who is first.
        trainers: How many train; 0 for all.

    Examples:
        >>> training_order(["hospital", "lab", "clinic"], 2, "rotating", 2)
        ('lab', 'clinic')
    """
    first = (round - 1) % len(providers) if order == "rotating" else 0
    return (*providers[first:], *providers[:first])[: trainers or None]


def sampled_iterations(iterations: int, period: int) -> range:
    """The index set {0, I, 2I, …} below T: iterations whose models are sent (section 2.2). It always holds 0.

    Args:
        iterations: T, at least 1.
        period: I, at least 1.

    Examples:
        >>> list(sampled_iterations(12, 5))
        [0, 5, 10]
    """
    return range(0, iterations, period)


def split_iterations(total: int, learner_samples: int, provider_samples: int) -> tuple[int, int]:
    """Splits T + T' in proportion to local sample sizes (section 4.2), at least one iteration each.

    Args:
        total: T + T', at least 2.
        learner_samples: Samples of the learner.
        provider_samples: Samples of the provider.

    Returns:
        T for the learner and T' for the provider.

    Examples:
        >>> split_iterations(100, learner_samples=37, provider_samples=100)
        (27, 73)
    """
    share = round(total * learner_samples / (learner_samples + provider_samples))
    learner = min(max(share, 1), total - 1)
    return learner, total - learner


def argmin(totals: Sequence[float]) -> int:
    """Index of the least total, the lowest such index on ties.

    Examples:
        >>> argmin([3.0, 1.0, 2.0, 1.0])
        1
    """
    return min(range(len(totals)), key=lambda index: (totals[index], index))


@dataclass(frozen=True, slots=True)
class Selection:
    """The checkpoint of a trajectory with the least global loss.

    Attributes:
        index: Its index; the lowest on ties.
        total: Its global loss f(θ; D(L,P)).
        losses: Its per-sample losses on the receiver's data, in the order of the data, float64.
        work: Forward passes made, as a share of those of a full evaluation, 0 to 1.
    """

    index: int
    total: float
    losses: Float[Tensor, " samples"]
    work: float


@dataclass(slots=True)
class _Candidate:
    """A checkpoint that is being evaluated block by block."""

    others: tuple[float, ...]
    bound: float
    losses: Float[Tensor, " samples"]
    done: int = 0
    partial: float = 0.0


class Screening:
    """Finds a trajectory's checkpoint of least global loss, exactly, with a part of the forward passes.

    Cross-entropy is at or above 0, so the other parties' loss plus the receiver's loss on some samples is a lower bound
    on a checkpoint's total. The checkpoint with the lowest bound is evaluated next, one block of samples at a time; what stays
    above the best complete total is never finished. Samples that were hard for the model that the trajectory began with
    come first, since they raise the bound fastest. The choice is that of a full evaluation, whatever the order of work.

    Args:
        evaluate: Per-sample losses at or above 0 of a checkpoint (by index) on the receiver's samples (by index).
        hardness: Losses of the receiver's samples, float64, under the model that the trajectory began with.
        block: Samples in a block.
        objective: How the parties' losses are added.

    Examples:
        Three checkpoints on four samples; the sender's loss of each is known. The last is never evaluated in full:

        >>> losses = torch.tensor([[2.0, 2, 2, 2], [0.5, 1, 0.5, 1], [9.0, 9, 9, 9]])
        >>> screening = Screening(lambda index, where: losses[index, where], losses[0].double(), block=2, objective="sum")
        >>> for index, sent in enumerate([8.0, 5.0, 4.0]):
        ...     screening.add(index, Loss(sent, 4))
        >>> found = screening.select()
        >>> found.index, found.total, round(found.work, 2)
        (1, 8.0, 0.67)
    """

    def __init__(
        self,
        evaluate: Callable[[int, Int[Tensor, " block"]], Float[Tensor, " block"]],
        hardness: Float[Tensor, " samples"],
        *,
        block: int,
        objective: Objective,
    ) -> None:
        self._evaluate = evaluate
        self._blocks = torch.argsort(hardness, descending=True, stable=True).split(block)
        self._samples = len(hardness)
        self._objective: Objective = objective
        self._candidates: dict[int, _Candidate] = {}
        self._heap: list[tuple[float, int]] = []
        self._best: tuple[float, int] | None = None
        self._evaluated = 0
        self._known = 0

    def __len__(self) -> int:
        """Checkpoints added so far."""
        return len(self._candidates)

    def add(self, index: int, others: Loss | JointLoss, known: Float[Tensor, " samples"] | None = None) -> None:
        """Adds a checkpoint.

        Args:
            index: Its index in the trajectory; each comes once.
            others: The sender's loss, or that of all other parties.
            known: Its per-sample losses on the receiver's data, where the receiver has evaluated it before.
        """
        losses = torch.empty(self._samples, dtype=torch.float64) if known is None else known
        parts = others.parts(self._objective)
        candidate = _Candidate(parts, math.fsum(parts), losses)
        self._candidates[index] = candidate
        if known is None:
            heapq.heappush(self._heap, (candidate.bound, index))
        else:
            self._known += 1
            self._complete(index, candidate)

    def advance(self, *, whole: bool = False) -> bool:  # noqa: ARG002
        """Evaluates one block of the most promising checkpoint; False when no checkpoint added so far can still win.

        Args:
            whole: Whether the trajectory is there to its end; it makes no difference here.
        """
        if not self._heap:
            return False
        bound, index = self._heap[0]
        if self._best is not None and bound > self._best[0] + abs(self._best[0]) * ABANDON_MARGIN:
            return False
        candidate = self._candidates[index]
        samples = self._blocks[candidate.done]
        losses = self._evaluate(index, samples).to(torch.float64)
        candidate.losses[samples] = losses
        candidate.partial += float(losses.sum())
        candidate.done += 1
        self._evaluated += len(samples)
        if candidate.done == len(self._blocks):
            heapq.heappop(self._heap)
            self._complete(index, candidate)
        else:
            own = Loss(candidate.partial, self._samples).value(self._objective)
            heapq.heapreplace(self._heap, (candidate.bound + own, index))
        return True

    def select(self) -> Selection:
        """Finishes the evaluation of everything added and returns the choice.

        Raises:
            ValueError: No checkpoint was added.
        """
        while self.advance():
            pass
        if self._best is None:
            raise ValueError("a trajectory holds at least checkpoint 0")
        total, index = self._best
        everything = self._samples * (len(self._candidates) - self._known)
        work = self._evaluated / everything if everything else 0.0
        return Selection(index, total, self._candidates[index].losses, work)

    def _complete(self, index: int, candidate: _Candidate) -> None:
        # Summed again in the order of the data, so that the total does not depend on the order of evaluation.
        own = Loss(float(candidate.losses.sum()), self._samples)
        total = math.fsum((*candidate.others, *own.parts(self._objective)))
        if self._best is None or (total, index) < self._best:
            self._best = total, index
