"""SegNet (Badrinarayanan et al. 2017) with a head for each task, as Liu et al. 2019 have it for NYUv2 and Cityscapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the paper's stages."""


class SegNet(nn.Module):
    """An encoder that halves the picture in each stage, a decoder that puts things back where they were, and heads on that.

    Args:
        heads: Outputs of each head, by name.
        widths: Channels of the stages; a picture's sides are multiples of two to the power of their number.
    """

    def __init__(self, heads: Mapping[str, int], widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        before = (3, *widths[:-1])
        # Of VGG-16: two convolutions in the first two stages, three in the others.
        counts = [2 if stage < 2 else 3 for stage in range(len(widths))]
        self.down = nn.ModuleList(_stage(*each) for each in zip(before, widths, counts, strict=True))
        after = (widths[0], *widths[:-1])
        self.up = nn.ModuleList(_stage(*each) for each in reversed([*zip(widths, after, counts, strict=True)]))
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Conv2d(after[0], after[0], 3, padding=1), nn.Conv2d(after[0], outputs, 1))
                for name, outputs in heads.items()
            }
        )

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """What each head says of each pixel."""
        features, places = inputs, []
        for stage in self.down:
            features, indices = self.pool(stage(features))
            places.append(indices)
        for stage in self.up:
            features = stage(self.unpool(features, places.pop()))
        return {name: head(features) for name, head in self.heads.items()}


def _stage(comes: int, goes: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for each in range(count):
        layers += [nn.Conv2d(goes if each else comes, goes, 3, padding=1), nn.BatchNorm2d(goes), nn.ReLU()]
    return nn.Sequential(*layers)
