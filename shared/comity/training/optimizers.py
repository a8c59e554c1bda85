"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

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

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser for these parameters."""
        match self.name:
            case "adam":
                return torch.optim.Adam(parameters, lr=self.learning_rate)
            case "sgd":
                return torch.optim.SGD(parameters, lr=self.learning_rate)
