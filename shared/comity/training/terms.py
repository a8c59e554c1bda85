"""What parties that train on their own samples agree on; importing it imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from comity.contract import Terms
from comity.privacy.settings import OptimizerName

Decay = Literal["constant", "linear", "cosine"]
"""How a learning rate falls over the steps of a local training: not, in a line to its last share, or along a cosine."""

Sampling = Literal["uniform", "balanced"]
"""How batches are drawn: each sample as likely as any, or each class as likely as any that the party has."""


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """An optimiser, made anew for every local training.

    Attributes:
        name: `adam` or `sgd`.
        learning_rate: Step size of the first step, above 0.
        momentum: Of `sgd`, from 0 to below 1.
        weight_decay: What each weight is pulled with towards 0, at or above 0: beside the gradient with `sgd`, apart from it
            with `adam` (AdamW).
        decay: How the learning rate falls within a training.
        last_share: The share of the learning rate that is left at the end of a training, 0 to 1, where it falls.
    """

    name: OptimizerName
    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay: Decay = "constant"
    last_share: float = 0.0

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step.

        Args:
            step: Which step, from 0.
            steps: How many the training has, at least 1.
        """
        done = min(step / steps, 1.0)
        match self.decay:
            case "constant":
                return self.learning_rate
            case "linear":
                left = 1 - done
            case "cosine":
                left = (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * (self.last_share + (1 - self.last_share) * left)


class TrainingTerms(Terms):
    """Terms of protocols in which parties train on batches of their own samples.

    Attributes:
        batch_size: Samples in a training step.
        evaluation_batch_size: Samples in a block of an evaluation; agreed on since it decides the rounding.
    """

    batch_size: Annotated[int, Field(ge=1, lt=2**32)] = 256
    evaluation_batch_size: Annotated[int, Field(ge=1, lt=2**32)] = 256
