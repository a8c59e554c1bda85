"""What parties that train on their own samples agree on; importing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from comity.contract import Terms

OptimizerName = Literal["adam", "sgd"]


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """An optimiser, made anew for every local training.

    Attributes:
        name: `adam`, or `sgd` without momentum.
        learning_rate: Step size, above 0.
    """

    name: OptimizerName
    learning_rate: float


class TrainingTerms(Terms):
    """Terms of protocols in which parties train on batches of their own samples.

    Attributes:
        batch_size: Samples in a training step.
        evaluation_batch_size: Samples in a block of an evaluation; agreed on since it decides the rounding.
    """

    batch_size: Annotated[int, Field(ge=1, lt=2**32)] = 256
    evaluation_batch_size: Annotated[int, Field(ge=1, lt=2**32)] = 256
