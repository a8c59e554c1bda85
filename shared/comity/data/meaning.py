"""What the numbers of samples stand for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a source says of its numbers, beside their shapes.

    Attributes:
        labels: Names of classes, or of targets, in the order of their numbers; empty where not stated: the numbers are
            then all that there is to say.
        features: Names of the columns of a table, in order; empty where there are none.
        units: Units of targets, in order; empty where they have none.
        target_mean: What was taken off each target; empty for nothing.
        target_std: What each target was then divided by; empty for nothing.
    """

    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()


UNSAID = Meaning()
"""Of data of which nothing but the numbers is known."""
