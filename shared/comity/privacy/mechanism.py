"""The Gaussian mechanism of a training step (Abadi et al. 2016)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from comity.errors import InvalidValue

_GREATEST_EPSILON = 100.0
"""Above it a guarantee says nothing, and the noise is below what the arithmetic resolves."""
_GREATEST_NOISE = 1e4


@dataclass(frozen=True, slots=True)
class Mechanism:
    """What a step does to gradients: clips each sample's, adds noise to their sum.

    Attributes:
        noise_multiplier: Standard deviation of the noise over `clipping_norm`, above 0, at most 10,000.
        delta: Probability with which a guarantee may fail, in (0, 1).
        clipping_norm: Greatest Euclidean norm of a sample's gradient, above 0; Chen et al. name none, so it is 1.

    Raises:
        InvalidValue: A number is out of its range.
    """

    noise_multiplier: float
    delta: float = 1e-5
    clipping_norm: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.noise_multiplier <= _GREATEST_NOISE:
            expected = f"above 0, at most {_GREATEST_NOISE:g}"
            raise InvalidValue("The noise multiplier", expected=expected, received=self.noise_multiplier)
        require_delta(self.delta)
        if not 0 < self.clipping_norm < math.inf:
            raise InvalidValue("The clipping norm", expected="a finite number above 0", received=self.clipping_norm)

    @classmethod
    def per_step(cls, epsilon: float, delta: float = 1e-5, clipping_norm: float = 1.0) -> Mechanism:
        """The preset of Chen et al. 2023 (section A.4): noise N(0, 2 ε⁻² ln δ⁻¹) in every step.

        Each step by itself is then said to be (ε, δ)-private; the classical proof of that holds for ε up to 1 only, so ask
        `account` what a training comes to.

        Args:
            epsilon: ε of a step, above 0, at most 100; the paper has 1, 5 and 10.
            delta: δ of a step, in (0, 1).
            clipping_norm: See the class.

        Raises:
            InvalidValue: A number is out of its range.
        """
        require_epsilon(epsilon)
        require_delta(delta)
        return cls(math.sqrt(2 * math.log(1 / delta)) / epsilon, delta, clipping_norm)


def require_epsilon(epsilon: float) -> None:
    """Checks an ε.

    Raises:
        InvalidValue: It is out of its range.
    """
    if not 0 < epsilon <= _GREATEST_EPSILON:
        expected = f"above 0, at most {_GREATEST_EPSILON:g}"
        raise InvalidValue("The privacy budget epsilon", expected=expected, received=epsilon)


def require_delta(delta: float) -> None:
    """Checks a δ.

    Raises:
        InvalidValue: It is out of its range.
    """
    if not 0 < delta < 1:
        raise InvalidValue("The privacy parameter delta", expected="above 0, below 1", received=delta)
