"""What the algorithm leaves open, by name and number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from comity.errors import InvalidValue

Rule = Literal["paper", "reference"]
"""Whose rule holds where the two differ: the published equations', or that of the code which the authors published."""
Valuation = Literal["cosine", "shapley", "sampled"]
"""What a contribution is: the cosine of eq. (3), the exact value of eq. (2), or that value from random permutations."""
FreeRiders = Literal["warn", "weigh_as_one", "exclude"]
"""What follows where a client has nothing of its own: it is said; its update also counts as nothing, and copies as one
client together; or it is also excluded when that has been so for some rounds."""
CoalitionWeights = Literal["importance", "fixed"]
"""What a valuation weighs updates with: importance, as the aggregate does and the paper has it, which makes differences
grow; or the same for ever, the clients' first weights."""

MOST_CLIENTS = 24
"""The exact value looks at 2^N coalitions: a fraction of a second here, and twice as long for each client more."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """How contributions turn into rewards.

    Attributes:
        alpha: Weight of the past in the moving average of eq. (4), 0 to 1.
        beta: Degree of altruism in eq. (5), above 0.
        floor: The least importance, 0 to 1/N.
        rule: Whose rule holds where the paper and the authors' code differ.
        valuation: What a contribution is.
        permutations: How many are drawn where contributions are sampled.
        coalition_weights: What a valuation weighs updates with.
        normalize_contributions: Bring a round's contributions to a sum of 1, negative ones taken as 0. The importance
            before sums to 1 and cosines do not, so that without this alpha is not the weight of the past.
    """

    alpha: float = 0.95
    beta: float = 1.0
    floor: float = 1e-3
    rule: Rule = "paper"
    valuation: Valuation = "cosine"
    permutations: int = 150
    coalition_weights: CoalitionWeights = "importance"
    normalize_contributions: bool = False

    def __post_init__(self) -> None:
        in_range = {
            "alpha": (0 <= self.alpha <= 1, "0 to 1"),
            "beta": (self.beta > 0, "above 0"),
            "floor": (0 <= self.floor < 1, "0 to 1/N"),
            "rule": (self.rule in get_args(Rule), " or ".join(get_args(Rule))),
            "valuation": (self.valuation in get_args(Valuation), ", ".join(get_args(Valuation))),
            "permutations": (self.permutations >= 1, "1 or more"),
            "coalition_weights": (self.coalition_weights in get_args(CoalitionWeights), "importance or fixed"),
        }
        for name, (holds, expected) in in_range.items():
            if not holds:
                raise InvalidValue(f"Gradient rewards: {name}", expected=expected, received=getattr(self, name))
