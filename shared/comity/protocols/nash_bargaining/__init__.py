"""Nash bargaining: Shamsian et al., "Auxiliary Learning as an Asymmetric Bargaining Game" (2023)."""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.protocols.nash_bargaining.algorithm import (
        Bargain,
        bargain,
        gram_matrix,
        power_gradient,
        power_jacobian,
    )
else:
    __getattr__ = lazily(
        __name__,
        {"algorithm": ["Bargain", "bargain", "gram_matrix", "power_gradient", "power_jacobian"]},
    )

__all__ = ["Bargain", "bargain", "gram_matrix", "power_gradient", "power_jacobian"]
