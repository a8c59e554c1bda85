"""Fully connected layers with ReLU between them."""

from __future__ import annotations

from math import prod

from torch import nn

from comity.errors import InvalidValue

_WIDEST = 8192
_DEEPEST = 16
_ACTION = "correct the model's options"


def mlp(input_shape: tuple[int, ...], classes: int, *, hidden: int = 64, hidden_layers: int = 1) -> nn.Module:
    """A multi-layer perceptron: `[batch, *input_shape]` to `[batch, classes]`.

    Args:
        input_shape: Any shape; a sample is flattened.
        classes: Outputs.
        hidden: Width of each hidden layer, 1 to 8192.
        hidden_layers: How many hidden layers, 0 to 16; none is multinomial logistic regression.

    Raises:
        InvalidValue: An option is out of its range.
    """
    # Without bounds, a number in a peer's contract could claim any amount of memory.
    if not 1 <= hidden <= _WIDEST:
        raise InvalidValue("Model 'mlp': option 'hidden'", expected=f"1 to {_WIDEST}", received=hidden, action=_ACTION)
    if not 0 <= hidden_layers <= _DEEPEST:
        raise InvalidValue(
            "Model 'mlp': option 'hidden_layers'", expected=f"0 to {_DEEPEST}", received=hidden_layers, action=_ACTION
        )
    layers: list[nn.Module] = [nn.Flatten()]
    width = prod(input_shape)
    for _ in range(hidden_layers):
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, classes))
