"""Convolutions alone, so that there is an answer for each pixel (Long, Shelhamer and Darrell 2015), without their upsampling."""

from __future__ import annotations

from torch import nn

from comity.errors import InvalidValue
from comity.models.image_shape import image_shape

_WIDEST = 1024
_DEEPEST = 16
_ACTION = "correct the model's options"


def fcn(input_shape: tuple[int, ...], outputs: int, *, width: int = 16, layers: int = 3) -> nn.Module:
    """A fully convolutional network: `[batch, channels, height, width]` to `[batch, outputs, height, width]`.

    Args:
        input_shape: 1 or 3 channels, any size.
        outputs: Numbers for each pixel: classes, or targets.
        width: Channels between layers, 1 to 1024.
        layers: Convolutions of 3x3 with ReLU before the last one of 1x1, 1 to 16; each sees one pixel further.

    Raises:
        InvalidValue: The shape is another, or an option is out of its range.
    """
    channels, _, _ = image_shape("fcn", input_shape, channels=(1, 3), smallest=1)
    if not 1 <= width <= _WIDEST:
        raise InvalidValue("Model 'fcn': option 'width'", expected=f"1 to {_WIDEST}", received=width, action=_ACTION)
    if not 1 <= layers <= _DEEPEST:
        raise InvalidValue("Model 'fcn': option 'layers'", expected=f"1 to {_DEEPEST}", received=layers, action=_ACTION)
    made: list[nn.Module] = []
    for _ in range(layers):
        made += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU()]
        channels = width
    return nn.Sequential(*made, nn.Conv2d(channels, outputs, kernel_size=1))
