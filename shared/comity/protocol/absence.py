"""What a party is told of rounds that it may have no part in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Absence:
    """Rounds of a session that a party has no part in, or may have none in, for lack of samples.

    Attributes:
        found: Which, and why.
        action: What to do about it.
    """

    found: str
    action: str
