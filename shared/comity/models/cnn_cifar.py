"""Three convolutions and three linear layers: the size of model that Xu et al. 2021 use for CIFAR-10."""

from __future__ import annotations

from torch import nn

from comity.models.image_shape import image_shape


def cnn_cifar(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A convolutional network: `[batch, channels, 32, 32]` to `[batch, classes]`; 930,826 parameters for CIFAR-10.

    There is no dropout, so training draws no random numbers in the forward pass.

    Args:
        input_shape: 1 or 3 channels, 32x32 pixels.
        classes: Outputs.

    Raises:
        InvalidValue: The shape is another.
    """
    channels, _, _ = image_shape("cnn-cifar", input_shape, channels=(1, 3), smallest=32, largest=32)
    layers: list[nn.Module] = []
    for width in (64, 128, 256):
        layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(256 * 4 * 4, 128),
        nn.ReLU(),
        nn.Linear(128, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )
