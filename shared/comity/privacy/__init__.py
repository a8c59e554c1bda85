"""Differential privacy of local training: the noise, what it is worth, and gradients that it covers (extra `dp`)."""

from comity.privacy.accounting import NOT_COVERED, Guarantee, account, for_total, paper_composition
from comity.privacy.agreed import agreed
from comity.privacy.gradients import PrivateGradients, require_private
from comity.privacy.mechanism import Mechanism

__all__ = [
    "NOT_COVERED",
    "Guarantee",
    "Mechanism",
    "PrivateGradients",
    "account",
    "agreed",
    "for_total",
    "paper_composition",
    "require_private",
]
