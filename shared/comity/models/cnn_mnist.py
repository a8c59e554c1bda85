"""Two convolutions and two linear layers: the size of model that Xu et al. 2021 use for MNIST."""

from __future__ import annotations

from torch import nn

from comity.models.image_shape import image_shape


def cnn_mnist(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A small convolutional network: `[batch, channels, height, width]` to `[batch, classes]`; 81,842 parameters for MNIST.

    Args:
        input_shape: 1 or 3 channels, at least 28x28 pixels.
        classes: Outputs.

    Raises:
        InvalidValue: The shape is another.
    """
    channels, height, width = image_shape("cnn-mnist", input_shape, channels=(1, 3), smallest=28)

    def pooled(side: int) -> int:
        """What is left of a side after a 3-wide and a 7-wide convolution, each halved by pooling."""
        return ((side - 2) // 2 - 6) // 2

    return nn.Sequential(
        nn.Conv2d(channels, 64, kernel_size=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 16, kernel_size=7),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * pooled(height) * pooled(width), 200),
        nn.ReLU(),
        nn.Linear(200, classes),
    )
