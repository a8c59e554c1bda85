"""Learning to help: Wu et al., "Learning to Help in Multi-Class Settings" (ICLR 2025)."""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.protocols.learning_to_help.algorithm import (
        bayes_rule,
        decide,
        generalized_zero_one_loss,
        rejector_loss,
        rejector_scores,
        server_loss,
    )
    from comity.protocols.learning_to_help.choices import Form
    from comity.protocols.learning_to_help.reject_rate import (
        RejectRule,
        confidence_scores,
        fit_reject_rule,
        stochastic_post_hoc,
    )
else:
    __getattr__ = lazily(
        __name__,
        {
            "algorithm": [
                "bayes_rule",
                "decide",
                "generalized_zero_one_loss",
                "rejector_loss",
                "rejector_scores",
                "server_loss",
            ],
            "choices": ["Form"],
            "reject_rate": ["RejectRule", "confidence_scores", "fit_reject_rule", "stochastic_post_hoc"],
        },
    )

__all__ = [
    "Form",
    "RejectRule",
    "bayes_rule",
    "confidence_scores",
    "decide",
    "fit_reject_rule",
    "generalized_zero_one_loss",
    "rejector_loss",
    "rejector_scores",
    "server_loss",
    "stochastic_post_hoc",
]
