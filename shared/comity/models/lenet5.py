"""LeNet-5 (LeCun et al. 1998, fig. 2), with ReLU and max-pooling in place of its sigmoids and averages."""

from __future__ import annotations

from torch import nn

from comity.models.image_shape import image_shape

_ORIGINAL_SIDE = 32


def lenet5(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """LeNet-5: `[batch, channels, height, width]` to `[batch, classes]`; 61,706 parameters for MNIST.

    Args:
        input_shape: 1 or 3 channels, at least 28x28 pixels.
        classes: Outputs.

    Raises:
        InvalidValue: The shape is another.
    """
    channels, height, width = image_shape("lenet5", input_shape, channels=(1, 3), smallest=28)
    # The original is made for 32x32 and pads MNIST's 28x28 up to it.
    padding = 2 if min(height, width) < _ORIGINAL_SIDE else 0

    def pooled(side: int) -> int:
        """What is left of a side after two 5-wide convolutions, each halved by pooling."""
        return ((side + 2 * padding - 4) // 2 - 4) // 2

    return nn.Sequential(
        nn.Conv2d(channels, 6, kernel_size=5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * pooled(height) * pooled(width), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )
