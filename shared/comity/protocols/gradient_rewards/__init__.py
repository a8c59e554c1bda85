"""Gradient rewards: Xu et al., "Gradient-Driven Rewards to Guarantee Fairness in Collaborative Machine Learning" (2021)."""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.protocols.gradient_rewards.algorithm import RoundResult, ServerState, aggregate, aggregate_round
    from comity.protocols.gradient_rewards.choices import MOST_CLIENTS, Mechanism, Rule
    from comity.protocols.gradient_rewards.contribution import (
        cosine_contribution,
        cosine_gradient_shapley,
        sampled_cosine_gradient_shapley,
    )
    from comity.protocols.gradient_rewards.inner_products import cosines_with, gram
    from comity.protocols.gradient_rewards.rewards import (
        SparseUpdate,
        normalize_update,
        reward_fractions,
        sparsify,
        sparsify_for_all,
        update_importance,
    )
    from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
else:
    __getattr__ = lazily(
        __name__,
        {
            "algorithm": ["RoundResult", "ServerState", "aggregate", "aggregate_round"],
            "choices": ["MOST_CLIENTS", "Mechanism", "Rule"],
            "contribution": ["cosine_contribution", "cosine_gradient_shapley", "sampled_cosine_gradient_shapley"],
            "inner_products": ["cosines_with", "gram"],
            "rewards": [
                "SparseUpdate",
                "normalize_update",
                "reward_fractions",
                "sparsify",
                "sparsify_for_all",
                "update_importance",
            ],
            "terms": ["GradientRewardsTerms"],
        },
    )

__all__ = [
    "MOST_CLIENTS",
    "GradientRewardsTerms",
    "Mechanism",
    "RoundResult",
    "Rule",
    "ServerState",
    "SparseUpdate",
    "aggregate",
    "aggregate_round",
    "cosine_contribution",
    "cosine_gradient_shapley",
    "cosines_with",
    "gram",
    "normalize_update",
    "reward_fractions",
    "sampled_cosine_gradient_shapley",
    "sparsify",
    "sparsify_for_all",
    "update_importance",
]
