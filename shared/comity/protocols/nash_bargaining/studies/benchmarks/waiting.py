"""A model whose training takes a wait that the environment says, on top of what it takes."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from torch import Tensor, nn

from comity.models import build

WAIT = "COMITY_BENCH_WAIT_S"
"""Seconds that a pass waits from which gradients are taken."""


def waiting_mlp(input_shape: tuple[int, ...], outputs: int, **options: Any) -> nn.Module:
    """A multilayer perceptron that waits."""
    return nn.Sequential(_Wait(), build("mlp", input_shape=input_shape, outputs=outputs, options=options, seed=0))


class _Wait(nn.Module):
    """Waits, and changes nothing."""

    def forward(self, inputs: Tensor) -> Tensor:
        """What came."""
        # A sleep of nothing would still give the processor to others.
        if self.training and torch.is_grad_enabled() and (wait_s := float(os.environ.get(WAIT, "0"))):
            time.sleep(wait_s)
        return inputs
