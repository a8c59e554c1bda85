"""The small residual networks for CIFAR (He et al. 2016, section 4.2): 6n+2 layers of 16, 32 and 64 channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from comity.errors import InvalidValue
from comity.models.image_shape import image_shape
from comity.models.resnet18_cifar import BasicBlock, Norm

_CHANNELS = (16, 32, 64)
_SMALLEST = 4
_NORMS: Mapping[str, Norm] = {"batch": nn.BatchNorm2d, "group": lambda channels: nn.GroupNorm(8, channels)}


def resnet8(input_shape: tuple[int, ...], classes: int, *, norm: str = "batch") -> nn.Module:
    """ResNet-8: `[batch, channels, height, width]` to `[batch, classes]`; 78,042 parameters for CIFAR-10.

    Args:
        input_shape: 1 or 3 channels, at least 4x4 pixels.
        classes: Outputs.
        norm: `batch`, or `group` for GroupNorm of 8 groups, which does not mix samples and so goes with differential
            privacy.

    Raises:
        InvalidValue: The shape or the norm is another.
    """
    return _small("resnet8", input_shape, classes, norm, blocks=1)


def resnet14(input_shape: tuple[int, ...], classes: int, *, norm: str = "batch") -> nn.Module:
    """ResNet-14: as `resnet8`, with two blocks a stage; 175,258 parameters for CIFAR-10."""
    return _small("resnet14", input_shape, classes, norm, blocks=2)


def _small(model: str, input_shape: tuple[int, ...], classes: int, norm: str, *, blocks: int) -> nn.Module:
    if norm not in _NORMS:
        raise InvalidValue(f"Model {model!r}: option 'norm'", expected=" or ".join(_NORMS), received=repr(norm))
    channels, _, _ = image_shape(model, input_shape, channels=(1, 3), smallest=_SMALLEST)
    return SmallResNet(channels, classes, _NORMS[norm], blocks)


class SmallResNet(nn.Module):
    """Three stages, averaged over the image."""

    def __init__(self, channels: int, classes: int, norm: Norm, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, _CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = norm(_CHANNELS[0])
        before = _CHANNELS[0]
        stages = []
        for width in _CHANNELS:
            first = BasicBlock(before, width, 1 if width == before else 2, norm)
            stages.append(nn.Sequential(first, *(BasicBlock(width, width, 1, norm) for _ in range(blocks - 1))))
            before = width
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, height, width]` to `[batch, classes]`."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return cast("Tensor", self.fc(x.mean(dim=(2, 3))))
