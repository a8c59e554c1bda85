"""What samples contribute to layers that normalize: a weight of each feature, or channel, and what is measured of it.

The weight of a feature moves by gradient times normalized input, feature by feature: where what comes after lets one sample
through, the weights together are that sample, as a row of a fully connected layer is. And what a layer measures of its inputs
is their mean, of which one sample may be all, where what comes before lets only one through.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

Norm = _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm

_FLOOR = 0.1
"""What a gradient counts for beside its product with the input: it moves a bias."""


def elements(norm: Norm) -> int:
    """Features, or channels, that have a weight each."""
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return torch.Size(norm.normalized_shape).numel()
    return norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features


def is_measured(norm: Norm) -> bool:
    """Whether a layer keeps what it measures of its inputs."""
    return isinstance(norm, _NormBase) and norm.running_mean is not None


def normalized(norm: Norm, inputs: Tensor) -> Tensor:
    """The inputs as the weights meet them, less what those of a batch have in common."""
    with torch.no_grad():
        if isinstance(norm, nn.LayerNorm):
            found = functional.layer_norm(inputs, norm.normalized_shape, eps=norm.eps)
        elif isinstance(norm, nn.RMSNorm):
            found = functional.rms_norm(inputs, norm.normalized_shape, eps=norm.eps)
        elif isinstance(norm, nn.GroupNorm):
            found = functional.group_norm(inputs, norm.num_groups, eps=norm.eps)
        elif isinstance(norm, nn.modules.instancenorm._InstanceNorm):  # noqa: SLF001 - there is no public name of all of them
            found = functional.instance_norm(inputs, eps=norm.eps)
        else:
            is_measuring = norm.training or norm.running_mean is None
            kept = (None, None) if is_measuring else (norm.running_mean, norm.running_var)
            found = functional.batch_norm(inputs, *kept, training=is_measuring, eps=norm.eps)
        return found


def moved_by(norm: Norm, inputs: Tensor, gradient: Tensor | None = None) -> Float[Tensor, "batch elements"]:
    """What each sample contributes to each element.

    Args:
        norm: The layer.
        inputs: What it measures, or what its weights meet.
        gradient: Of what it gives; None for what is measured.
    """
    apart = _by_element(norm, inputs)
    apart = apart - apart.mean((0, 1))
    if gradient is None:
        return apart.mean(1)
    steep = _by_element(norm, gradient)
    weight, bias = (apart * steep).sum(1), steep.sum(1)
    return torch.copysign(torch.hypot(weight, _FLOOR * bias), weight)


def _by_element(norm: Norm, values: Tensor) -> Float[Tensor, "batch positions elements"]:
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return values.reshape(len(values), -1, elements(norm))
    return values.reshape(*values.shape[:2], -1).transpose(1, 2)
