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
    from comity.protocols.learning_to_help.evaluation import Evaluation, evaluate
    from comity.protocols.learning_to_help.features import Quantization
    from comity.protocols.learning_to_help.reject_rate import (
        RejectRule,
        confidence_scores,
        fit_reject_rule,
        stochastic_post_hoc,
    )
    from comity.protocols.learning_to_help.training import Costs, Fitting, fit_rejector, fit_server, held_out_correct
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
            "evaluation": ["Evaluation", "evaluate"],
            "features": ["Quantization"],
            "reject_rate": ["RejectRule", "confidence_scores", "fit_reject_rule", "stochastic_post_hoc"],
            "training": ["Costs", "Fitting", "fit_rejector", "fit_server", "held_out_correct"],
        },
    )

__all__ = [
    "Costs",
    "Evaluation",
    "Fitting",
    "Form",
    "Quantization",
    "RejectRule",
    "bayes_rule",
    "confidence_scores",
    "decide",
    "evaluate",
    "fit_reject_rule",
    "fit_rejector",
    "fit_server",
    "generalized_zero_one_loss",
    "held_out_correct",
    "rejector_loss",
    "rejector_scores",
    "server_loss",
    "stochastic_post_hoc",
]
