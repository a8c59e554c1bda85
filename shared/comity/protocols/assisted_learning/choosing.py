"""How a party chooses from a trajectory: by the losses of all parties, evaluating as few samples as it must."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from comity import faults
from comity.errors import NonFiniteValue
from comity.protocols.assisted_learning.algorithm import JointLoss, Loss, Screening, Selection
from comity.protocols.assisted_learning.loss_table import WORST
from comity.protocols.assisted_learning.messages import Checkpoint
from comity.protocols.assisted_learning.own_losses import OwnLosses
from comity.protocols.assisted_learning.race import Race
from comity.protocols.assisted_learning.schedule import Schedule
from comity.randomness import derive, generator


class CheckpointChooser:
    """Picks the received checkpoint of least global loss.

    Args:
        schedule: How to choose, as the terms have it.
        losses: This party's losses on models.
        samples: How many samples it has.
        seed: The session's public seed.
        others: The loss of all other parties on a checkpoint; None where not all have said theirs.
    """

    def __init__(
        self,
        schedule: Schedule,
        losses: OwnLosses,
        samples: int,
        seed: int,
        others: Callable[[Checkpoint], Loss | JointLoss | None],
    ) -> None:
        self.pick: Checkpoint | None = None
        self.pick_total = math.nan
        self.work = 0.0
        self._schedule = schedule
        self._terms = schedule.terms
        self._losses = losses
        self._samples = samples
        self._seed = seed
        self._others = others
        self._screening: Screening | Race | None = None
        self._received: Sequence[Checkpoint] = ()

    def advance(self, received: Sequence[Checkpoint], *, whole: bool = False) -> bool:
        """Evaluates a block of what was received; False when there is nothing to gain by it.

        Args:
            received: The trajectory to choose from, as far as it has come.
            whole: Whether all of it was received.
        """
        if not received:
            return False
        faults.point("evaluation")
        return self._screened(received).advance(whole=whole)

    def select(self, received: Sequence[Checkpoint]) -> Selection:
        """Finds the checkpoint of least global loss, once all were received.

        Raises:
            NonFiniteValue: No checkpoint has a finite global loss.
        """
        selection = self._screened(received).select()
        if not math.isfinite(selection.total) or (self._schedule.is_shared and selection.total >= WORST):
            raise NonFiniteValue(
                "no checkpoint has a finite global loss",
                expected="a finite loss",
                received=selection.total,
                action="lower the learning_rate",
            )
        faults.point("selection")
        self.work = selection.work
        return selection

    def keep(self, pick: Checkpoint, total: float, losses: bytes | None) -> None:
        """Takes note of a pick that is durable, with the blob of this party's losses on it."""
        self.pick = pick
        self.pick_total = total
        self._losses.keep(pick.digest, losses)
        self._screening = None

    def begin_round(self) -> None:
        """Forgets what was evaluated of the round before; what was picked stays."""
        self._screening = None

    def _screened(self, received: Sequence[Checkpoint]) -> Screening | Race:
        """The screening of what was received, with everything added of which the others have said what they think."""
        self._received = received
        first = received[0].digest
        if self._screening is None:
            block, objective = self._terms.evaluation_batch_size, self._terms.objective
            if self._terms.screening == "race":
                # The same order in every round: with whose data it has nothing to do.
                order = torch.randperm(self._samples, generator=generator(derive(self._seed, "race")))
                self._screening = Race(self._evaluate, order, block=block, objective=objective)
            else:
                self._screening = Screening(self._evaluate, self._losses.of(first), block=block, objective=objective)
        for checkpoint in received[len(self._screening) :]:
            others = self._others(checkpoint)
            if others is None:
                break
            known = self._losses.of(first) if checkpoint.digest == first else None
            self._screening.add(checkpoint.index, others, known)
        return self._screening

    def _evaluate(self, index: int, samples: Int[Tensor, " block"]) -> Float[Tensor, " block"]:
        return self._losses.of_samples(self._received[index].digest, samples)
