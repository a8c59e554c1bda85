"""What a session of Nash bargaining leaves open, by name."""

from __future__ import annotations

from typing import Literal

Schedule = Literal["cosine", "constant"]
"""How the length of the learner's steps changes over the rounds."""
Unfit = Literal["leave_out", "fail"]
"""What follows where a provider's gradient cannot be used: the step is taken without it, or the session ends."""
