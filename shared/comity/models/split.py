"""A model in two: a trunk, which makes features of inputs, and a head on it, which may stay at home."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from comity.errors import InvalidValue


def layer_of(model: nn.Module, name: str) -> nn.Module:
    """A layer by its name, for example `fc` or `classifier.1`.

    Raises:
        InvalidValue: There is none.
    """
    layers = dict(model.named_modules())
    if not name or name not in layers:
        raise InvalidValue(
            "the model has no such layer",
            expected=", ".join(each for each in layers if each)[:300] or "a model of layers",
            received=repr(name),
            action="correct the layer's name",
        )
    found: nn.Module = layers[name]
    return found


def end_before(model: nn.Module, head: str) -> nn.Module:
    """Takes the head off a model, which then gives the features that went into it.

    Args:
        model: The model, which is changed: the trunk.
        head: Name of the layer, or group of layers, that makes the answer.

    Returns:
        The head.

    Raises:
        InvalidValue: There is no such layer.
    """
    taken = layer_of(model, head)
    around, _, name = head.rpartition(".")
    setattr(model.get_submodule(around), name, nn.Identity())
    return taken


@torch.no_grad()
def feature_shape(trunk: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the features of one input.

    Args:
        trunk: What makes them.
        input_shape: Shape of one input.
    """
    was_training = trunk.training
    trunk.eval()
    like = next(iter(trunk.parameters()), torch.empty(0))
    try:
        features: Tensor = trunk(torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device))
    finally:
        trunk.train(was_training)
    return tuple(features.shape[1:])


class TrunkAndHeads(nn.Module):
    """A trunk with heads on it, each of which has a name; what the trunk makes of an input is made once for all of them.

    Args:
        trunk: Makes features of inputs.
        heads: Make answers of features.
    """

    def __init__(self, trunk: nn.Module, heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict(heads)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """The answer of each head."""
        features = self.trunk(inputs)
        return {name: head(features) for name, head in self.heads.items()}


class WithFeatures:
    """Calls a model and tells what went into one of its layers beside what it answers, in one pass.

    Args:
        model: The model.
        layer: Name of the layer whose input is wanted: the head, for the features that it goes by.

    Raises:
        InvalidValue: There is no such layer.
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        self._model = model
        self._layer = layer
        self._tapped = layer_of(model, layer)

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The answer to a batch, and the features of its inputs.

        Raises:
            InvalidValue: The layer is not called, or with something else than a tensor.
        """
        seen: list[Any] = []
        handle = self._tapped.register_forward_pre_hook(lambda _, given: seen.append(given[0] if given else None))
        try:
            answer: Tensor = self._model(inputs)
        finally:
            handle.remove()
        if len(seen) != 1 or not isinstance(seen[0], Tensor):
            raise InvalidValue(
                f"layer {self._layer} has no features",
                expected="a layer that is called once, with a tensor",
                received=f"{len(seen)} calls",
                action="name the layer that makes the answer",
            )
        return answer, seen[0]
