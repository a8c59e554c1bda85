"""Differential privacy of local training: the noise, what it is worth, and gradients that it covers (extra `dp`)."""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.privacy.accounting import NOT_COVERED, Guarantee, account, for_total, paper_composition
    from comity.privacy.agreement import agreed
    from comity.privacy.gradients import PrivateGradients, require_private
    from comity.privacy.mechanism import Mechanism
    from comity.privacy.terms import PrivacyTerms
else:
    __getattr__ = lazily(
        __name__,
        {
            "accounting": ["NOT_COVERED", "Guarantee", "account", "for_total", "paper_composition"],
            "agreement": ["agreed"],
            "gradients": ["PrivateGradients", "require_private"],
            "mechanism": ["Mechanism"],
            "terms": ["PrivacyTerms"],
        },
    )

__all__ = [
    "NOT_COVERED",
    "Guarantee",
    "Mechanism",
    "PrivacyTerms",
    "PrivateGradients",
    "account",
    "agreed",
    "for_total",
    "paper_composition",
    "require_private",
]
