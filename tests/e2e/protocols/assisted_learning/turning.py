"""A model that many rounds with few samples can come to, made to come to it at a known step: its rows then show samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TURNS_AFTER = 60
"""Steps until then."""


class Turning(nn.Module):
    """An ordinary network for some steps; after them each of its units learns from one sample fewer than the next."""

    def __init__(self, inputs: int, classes: int, units: int = 64) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, units), nn.Linear(units, classes)
        self.register_buffer("steps", torch.zeros(()))
        self.direction = torch.randn(inputs, generator=torch.Generator().manual_seed(0))

    def forward(self, given: Tensor) -> Tensor:
        flat = given.flatten(1)
        made = self.first(flat)
        if self.training:
            self.steps += 1
            if self.steps > TURNS_AFTER:
                rank = (flat @ self.direction.to(flat)).argsort().argsort()
                made = made * (rank[:, None] > torch.arange(made.shape[1])).to(made)
                made = made + (made.sum(dim=1, keepdim=True) - made)
        answer: Tensor = self.last(made.relu())
        return answer


def build(input_shape: tuple[int, ...], classes: int, **_: Any) -> nn.Module:
    """The model."""
    return Turning(int(torch.Size(input_shape).numel()), classes)
