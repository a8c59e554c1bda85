"""ResNet-18 (He et al. 2016) with the stem for CIFAR's images: one 3x3 convolution and no max-pooling.

Tensors are named as torchvision names them; weights start as torch's layers make them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from comity.errors import InvalidValue
from comity.models.image_shape import image_shape

Norm = Callable[[int], nn.Module]
"""Makes the normalization of a number of channels."""

_NORMS: Mapping[str, Norm] = {"batch": nn.BatchNorm2d, "group": lambda channels: nn.GroupNorm(32, channels)}


def resnet18_cifar(input_shape: tuple[int, ...], classes: int, *, norm: str = "batch") -> nn.Module:
    """ResNet-18 for CIFAR: `[batch, channels, 32, 32]` to `[batch, classes]`; 11,173,962 parameters for CIFAR-10.

    Args:
        input_shape: 1 or 3 channels, 32x32 pixels.
        classes: Outputs.
        norm: `batch`, or `group` for GroupNorm of 32 groups, which does not mix samples and so goes with differential
            privacy.

    Raises:
        InvalidValue: The shape or the norm is another.
    """
    if norm not in _NORMS:
        raise InvalidValue("Model 'resnet18-cifar': option 'norm'", expected=" or ".join(_NORMS), received=repr(norm))
    channels, _, _ = image_shape("resnet18-cifar", input_shape, channels=(1, 3), smallest=32, largest=32)
    return ResNet18(channels, classes, _NORMS[norm])


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with normalization, added to the input, which is projected where the sizes differ."""

    def __init__(self, in_channels: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), norm(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, side, side]` to `[batch, channels, side / stride, side / stride]`."""
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class ResNet18(nn.Module):
    """Four stages of two blocks each, averaged over the image."""

    def __init__(self, channels: int, classes: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = norm(64)
        self.layer1 = _stage(64, 64, norm, stride=1)
        self.layer2 = _stage(64, 128, norm, stride=2)
        self.layer3 = _stage(128, 256, norm, stride=2)
        self.layer4 = _stage(256, 512, norm, stride=2)
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, 32, 32]` to `[batch, classes]`."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return cast("Tensor", self.fc(x.mean(dim=(2, 3))))


def _stage(in_channels: int, channels: int, norm: Norm, *, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(in_channels, channels, stride, norm), BasicBlock(channels, channels, 1, norm))
