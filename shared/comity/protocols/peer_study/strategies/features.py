"""What the task model has of a sample before its last layer, and that layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from comity.errors import InvalidValue
from comity.protocols.peer_study.pool import BLOCK, Pool, in_blocks


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Of samples, in order; the samples themselves are not kept.

    Attributes:
        hidden: h, what goes into the last layer.
        logits: What comes out of it.
    """

    hidden: Float[Tensor, "n hidden"]
    logits: Float[Tensor, "n classes"]

    def __len__(self) -> int:
        """How many samples they are of."""
        return len(self.hidden)


def last_layer(model: nn.Module) -> nn.Linear:
    """The fully connected layer that gives the logits: the last one that the model has.

    Raises:
        InvalidValue: It has none.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise InvalidValue(
            "The last layer of the task model",
            expected="a torch.nn.Linear",
            received=type(model).__name__,
            action="take a strategy that needs no features: peer_study, random or entropy",
        )
    return layers[-1]


def features(model: nn.Module, pool: Pool, indices: Int[Tensor, " n"], block: int = BLOCK) -> Features:
    """The features of samples under a model in evaluation mode, a block at a time.

    Raises:
        InvalidValue: The model has no fully connected layer, there are no samples, or the block is out of range.
    """
    kept: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0])

    def compute(inputs: Tensor) -> Tensor:
        kept.clear()
        logits: Tensor = model(inputs)
        return torch.cat([kept[-1], logits], dim=1)

    layer = last_layer(model)
    hook = layer.register_forward_pre_hook(keep)
    try:
        both = in_blocks(pool, indices, compute, block)
    finally:
        hook.remove()
    return Features(both[:, : layer.in_features], both[:, layer.in_features :])
