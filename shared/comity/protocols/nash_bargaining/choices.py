"""What a session of Nash bargaining leaves open, by name."""

from __future__ import annotations

from typing import Literal

Schedule = Literal["cosine", "constant"]
"""How the length of the learner's steps changes over the rounds."""
Unfit = Literal["leave_out", "fail"]
"""What follows where a provider's gradient cannot be used: the step is taken without it, or the session ends."""


def score_field(score: str, of: str) -> str:
    """What a metric is called that has the score of a model, such as `accuracy_alone`; of scores but accuracy `score_alone`.

    Args:
        score: The number of a test that models are compared by.
        of: Whose it is, or when.
    """
    return f"{score if score == 'accuracy' else 'score'}_{of}"
