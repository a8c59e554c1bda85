"""What a query carries: features of the local model's trunk in 8 bits, as the server's models take them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from comity.errors import InvalidValue, NonFiniteValue, PolicyRefusal
from comity.models.split import WithFeatures

_STEPS = 255


@dataclass(frozen=True)
class Quantization:
    """Numbers in 8 bits: 256 steps from the least to the greatest; what lies outside is cut.

    It costs no accuracy, and hides nothing: the inputs can be reconstructed from such features.

    Attributes:
        minimum: What 0 stands for.
        maximum: What 255 stands for, above the minimum.

    Raises:
        InvalidValue: They are not finite, or not in this order.
    """

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        """Checks the range, which may come from a peer."""
        if not -math.inf < self.minimum < self.maximum < math.inf:
            raise InvalidValue(
                "The range of features",
                expected="two finite numbers, the second above the first",
                received=f"{self.minimum} and {self.maximum}",
            )

    @classmethod
    def of(cls, features: Float[Tensor, "batch ..."]) -> Quantization:
        """The range of these features; those of training samples, so that a query tells nothing of others.

        Raises:
            NonFiniteValue: A feature is NaN or infinite.
            InvalidValue: All of them are equal, or there is none.
        """
        if features.numel() == 0:
            raise InvalidValue("Features that give a range", expected="at least one sample", received="none")
        if not bool(torch.isfinite(features).all()):
            raise NonFiniteValue("Features of the local model", expected="finite values", received="NaN or infinity")
        return cls(float(features.min()), float(features.max()))

    def encode(self, features: Float[Tensor, "batch ..."]) -> UInt8[Tensor, "batch ..."]:
        """The nearest step of each feature.

        Raises:
            NonFiniteValue: A feature is NaN or infinite.

        Examples:
            >>> Quantization(0.0, 1.0).encode(torch.tensor([[-1.0, 0.5, 2.0]]))
            tensor([[  0, 128, 255]], dtype=torch.uint8)
        """
        if not bool(torch.isfinite(features).all()):
            raise NonFiniteValue("Features of the local model", expected="finite values", received="NaN or infinity")
        steps = (features - self.minimum) * (_STEPS / (self.maximum - self.minimum))
        return steps.round().clamp(0, _STEPS).to(torch.uint8)

    @staticmethod
    def decode(steps: UInt8[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """What models take: the steps scaled to 0 to 1, float32."""
        return steps.to(torch.float32) / _STEPS


def feature_shape(local: nn.Module, layer: str, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one input's features."""
    with torch.no_grad():
        return tuple(_tried(local, layer, input_shape).shape[1:])


def require_made_by_weights(local: nn.Module, layer: str, input_shape: tuple[int, ...]) -> None:
    """Checks that what queries carry is made of inputs by weights, and is not the inputs themselves, scaled for example.

    Raises:
        PolicyRefusal: No weight has a part in it.
    """
    wanted = {name: each.requires_grad for name, each in local.named_parameters()}
    local.requires_grad_(True)
    try:
        with torch.enable_grad():
            is_made = _tried(local, layer, input_shape).requires_grad
    finally:
        for name, each in local.named_parameters():
            each.requires_grad_(wanted[name])
    if not is_made:
        raise PolicyRefusal(
            "queries would carry the inputs themselves",
            expected="a layer whose input is made by another layer, with weights",
            received=f"session.terms.features = {layer!r}, before which there are none",
            action="name another, or allow it by raw_inputs = true in [protocols.learning_to_help] of node.toml",
        )


def _tried(local: nn.Module, layer: str, input_shape: tuple[int, ...]) -> Tensor:
    """The features of an input."""
    like = next(iter(local.parameters()))
    given = torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device)
    was_training = local.training
    local.eval()
    _, features = WithFeatures(local, layer)(given)
    local.train(was_training)
    return features
