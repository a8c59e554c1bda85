"""A convolution and two linear layers: for digits of 8x8, and for features that are a convolution's."""

from __future__ import annotations

from torch import nn

from comity.errors import InvalidValue
from comity.models.image_shape import image_shape

_FILTERS = 16
_WIDEST = 8192


def cnn_small(input_shape: tuple[int, ...], classes: int, *, hidden: int = 32) -> nn.Module:
    """A very small convolutional network: `[batch, channels, height, width]` to `[batch, classes]`; 8,714 parameters for digits.

    What goes into layer `4` are its features: those of one convolution, 256 for digits.

    Args:
        input_shape: 1 or 3 channels, at least 2x2 pixels.
        classes: Outputs.
        hidden: Width of the hidden layer, 1 to 8192.

    Raises:
        InvalidValue: The shape or the option is another.
    """
    channels, height, width = image_shape("cnn-small", input_shape, channels=(1, 3), smallest=2)
    if not 1 <= hidden <= _WIDEST:
        raise InvalidValue("Model 'cnn-small': option 'hidden'", expected=f"1 to {_WIDEST}", received=hidden)
    return nn.Sequential(
        nn.Conv2d(channels, _FILTERS, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(_FILTERS * (height // 2) * (width // 2), hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
