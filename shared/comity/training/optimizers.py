"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from comity.training.master_weights import MasterWeights, is_half
from comity.training.terms import OptimizerSpec


def build_optimizer(spec: OptimizerSpec, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """An optimiser for these parameters; where they are in half precision, of wide copies of them."""
    weights = list(parameters)
    if is_half(weights):
        return MasterWeights(weights, partial(_build, spec))
    return _build(spec, weights)


def _build(spec: OptimizerSpec, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    match spec.name:
        case "adam" if spec.weight_decay:
            return torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
        case "adam":
            return torch.optim.Adam(parameters, lr=spec.learning_rate)
        case "sgd":
            return torch.optim.SGD(
                parameters, lr=spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay
            )


def set_rate(optimizer: torch.optim.Optimizer, spec: OptimizerSpec, step: int, steps: int) -> None:
    """Gives an optimiser the learning rate of a step, which follows from its number alone."""
    if spec.decay != "constant":
        for group in optimizer.param_groups:
            group["lr"] = spec.rate(step, steps)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's tensors as a flat dict: those of parameter 3 begin with `3.`; empty before the first step."""
    state = optimizer.state_dict()["state"]
    return {f"{parameter}.{name}": tensor for parameter, tensors in state.items() for name, tensor in tensors.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Sets an optimiser's tensors to what `optimizer_state` gave."""
    tensors: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        parameter, _, key = name.partition(".")
        tensors.setdefault(int(parameter), {})[key] = tensor.clone()
    optimizer.load_state_dict(optimizer.state_dict() | {"state": tensors})
