"""AlexNet (Krizhevsky et al. 2012) as it is usually cut down to CIFAR's images: five convolutions, one linear layer."""

from __future__ import annotations

from torch import nn

from comity.models.image_shape import image_shape


def alexnet_cifar(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """AlexNet for CIFAR: `[batch, channels, 32, 32]` to `[batch, classes]`; 2,472,266 parameters for CIFAR-10.

    There is no dropout, so training draws no random numbers in the forward pass.

    Args:
        input_shape: 1 or 3 channels, 32x32 pixels.
        classes: Outputs.

    Raises:
        InvalidValue: The shape is another.
    """
    channels, _, _ = image_shape("alexnet-cifar", input_shape, channels=(1, 3), smallest=32, largest=32)
    return nn.Sequential(
        nn.Conv2d(channels, 64, kernel_size=11, stride=4, padding=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, classes),
    )
