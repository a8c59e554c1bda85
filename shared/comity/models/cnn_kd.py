"""Six convolutions and three linear layers: the model that Chen et al. 2023 exchange in place of a ResNet-18 (A.2.2)."""

from __future__ import annotations

from torch import nn

from comity.models.image_shape import image_shape


def cnn_kd(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A convolutional network: `[batch, channels, 32, 32]` to `[batch, classes]`; 5,607,498 parameters for CIFAR-10.

    That is half of a ResNet-18's, as in the paper, which names no widths. Convolutions are followed by BatchNorm, since
    the paper trains with SGD and a learning rate of .1.

    Args:
        input_shape: 1 or 3 channels, 32x32 pixels.
        classes: Outputs.

    Raises:
        InvalidValue: The shape is another.
    """
    channels, _, _ = image_shape("cnn-kd", input_shape, channels=(1, 3), smallest=32, largest=32)
    layers: list[nn.Module] = []
    for width in (64, 128, 256):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(256 * 4 * 4, 1024),
        nn.ReLU(),
        nn.Linear(1024, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )
