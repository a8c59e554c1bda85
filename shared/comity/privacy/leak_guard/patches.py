"""What a convolution sees, position by position, where these are few."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

_POSITIONS = 16
"""Positions up to which convolutions are judged; of more, that would take longer than the training."""


def may_be_judged(module: _ConvNd) -> bool:
    """Whether a row of a convolution's weight belongs to one of its outputs."""
    return not module.transposed


def few_positions(output: Tensor) -> bool:
    """Whether an output of a convolution is of few positions for each sample."""
    return output.ndim > 2 and output.shape[2:].numel() <= _POSITIONS


def patches(
    convolution: _ConvNd, inputs: Float[Tensor, "batch channels ..."]
) -> Float[Tensor, "batch positions inputs"]:
    """What a convolution sees of inputs at each of its positions, channel by channel."""
    reach = [each * (size - 1) for each, size in zip(convolution.dilation, convolution.kernel_size, strict=True)]
    if isinstance(convolution.padding, str):
        same = convolution.padding == "same"
        pads = [(each // 2, each - each // 2) if same else (0, 0) for each in reach]
    else:
        pads = [(each, each) for each in convolution.padding]
    if any(map(any, pads)):
        mode = "constant" if convolution.padding_mode == "zeros" else convolution.padding_mode
        inputs = nn.functional.pad(inputs, [each for pair in reversed(pads) for each in pair], mode)
    dimensions = len(reach)
    for at, (far, between, stride) in enumerate(zip(reach, convolution.dilation, convolution.stride, strict=True)):
        # Each dimension of places becomes two: where the kernel is, and where in it.
        dimension = 2 + 2 * at
        starts = torch.arange(0, inputs.shape[dimension] - far, stride, device=inputs.device)
        within = torch.arange(0, far + 1, between, device=inputs.device)
        places = starts.unsqueeze(1) + within
        inputs = inputs.index_select(dimension, places.flatten()).unflatten(dimension, places.shape)
    outer, inner = (range(2 + first, 2 + 2 * dimensions, 2) for first in (0, 1))
    return inputs.permute(0, *outer, 1, *inner).flatten(1 + dimensions).flatten(1, dimensions)
