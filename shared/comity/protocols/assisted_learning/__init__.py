"""Assisted learning: Chen et al., "Assisted Learning for Organizations with Limited Imbalanced Data", TMLR 2023."""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.protocols.assisted_learning.algorithm import (
        JointLoss,
        Loss,
        Screening,
        Selection,
        argmin,
        sampled_iterations,
        split_iterations,
        training_order,
    )
    from comity.protocols.assisted_learning.race import Race
    from comity.protocols.assisted_learning.terms import AssistedLearningTerms, PolicyGradientTerms
else:
    __getattr__ = lazily(
        __name__,
        {
            "algorithm": [
                "JointLoss",
                "Loss",
                "Screening",
                "Selection",
                "argmin",
                "sampled_iterations",
                "split_iterations",
                "training_order",
            ],
            "race": ["Race"],
            "terms": ["AssistedLearningTerms", "PolicyGradientTerms"],
        },
    )

__all__ = [
    "AssistedLearningTerms",
    "JointLoss",
    "Loss",
    "PolicyGradientTerms",
    "Race",
    "Screening",
    "Selection",
    "argmin",
    "sampled_iterations",
    "split_iterations",
    "training_order",
]
