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
        target_mean: What is to be taken off each target; empty where a contract may say.
        target_std: What each target is then to be divided by, likewise.
    """

    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()


UNSAID = Meaning()
"""Of data of which nothing but the numbers is known."""
