"""Training of weights in half precision: the optimiser works on wide copies of them.

Small steps vanish where weights have few digits, and Adam's ε is 0 in float16. So each weight has a float32 copy, its master
weight (Micikevicius et al., "Mixed Precision Training", 2018), which a step moves; the weight is that, rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

_HALF = (torch.float16, torch.bfloat16)
_MASTER = "master"


def is_half(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether some weights are in half precision."""
    return any(each.dtype in _HALF for each in parameters)


class MasterWeights(torch.optim.Optimizer):
    """An optimiser of float32 copies of weights. Its state has the copies too, so that a training can go on from it.

    Args:
        parameters: The weights.
        make: Makes the optimiser of the copies.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    ) -> None:
        super().__init__(parameters, {})
        self._weights = list(parameters)
        self._masters = [nn.Parameter(each.detach().float()) for each in parameters]
        self._inner = make(self._masters)
        self._moved = False

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """See `torch.optim.Optimizer.step`."""
        del closure
        for weight, master in zip(self._weights, self._masters, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
        for group in self._inner.param_groups:
            group["lr"] = self.param_groups[0].get("lr", group["lr"])
        self._inner.step()
        self._moved = True
        for weight, master in zip(self._weights, self._masters, strict=True):
            weight.copy_(master)

    def state_dict(self) -> dict[str, Any]:
        """See `torch.optim.Optimizer.state_dict`."""
        kept = self._inner.state_dict()
        # Before the first step there is nothing to go on from.
        if self._moved:
            for place, master in enumerate(self._masters):
                kept["state"].setdefault(place, {})[_MASTER] = master.detach()
        return kept

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `torch.optim.Optimizer.load_state_dict`."""
        inner: dict[int, dict[str, Any]] = {}
        for place, kept in state_dict["state"].items():
            if _MASTER in kept:
                with torch.no_grad():
                    self._masters[place].copy_(kept[_MASTER])
                    self._moved = True
            if rest := {name: tensor for name, tensor in kept.items() if name != _MASTER}:
                inner[place] = rest
        self._inner.load_state_dict({**state_dict, "state": inner})
