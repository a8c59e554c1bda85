"""Which noise parties agree on; importing it imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from comity.contract import Agreed


class PrivacyTerms(Agreed):
    """Which noise covers the samples that a party trains on; `comity.privacy` says what it is worth.

    Attributes:
        scope: Whether ε and δ are those of every step, as the paper has them, or of the whole session.
        epsilon: ε; the paper has 1, 5 and 10 for a step.
        delta: δ.
        clipping_norm: Greatest Euclidean norm of a sample's gradient.
    """

    scope: Literal["per_step", "total"]
    epsilon: Annotated[float, Field(gt=0, le=100)]
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    clipping_norm: Annotated[float, Field(gt=0, le=1e30)] = 1.0
