"""Wide residual networks (Zagoruyko and Komodakis 2016), as trunks: WRN-28-2 is of depth 28 and width 2."""

from __future__ import annotations

from torch import Tensor, nn

_WIDTHS = (16, 32, 64)


class _Block(nn.Module):
    """Two convolutions with normalisation and ReLU before each, and what goes around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.inner = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        self.around = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """The features after the block."""
        ready = self.before(inputs)
        around: Tensor = self.around(inputs if isinstance(self.around, nn.Identity) else ready)
        inner: Tensor = self.inner(ready)
        return around + inner


def wide_resnet(channels: int, depth: int = 28, width: int = 2) -> tuple[nn.Module, int]:
    """A trunk for small pictures, and how many features come out of it.

    Args:
        channels: Of a picture.
        depth: Layers: 4 more than six times the blocks of a stage.
        width: How often wider than a plain one it is.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, _WIDTHS[0], 3, 1, 1, bias=False)]
    at = _WIDTHS[0]
    for stage, plain in enumerate(_WIDTHS):
        for block in range((depth - 4) // 6):
            layers.append(_Block(at, plain * width, 2 if stage and not block else 1))
            at = plain * width
    layers += [nn.BatchNorm2d(at), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers), at
