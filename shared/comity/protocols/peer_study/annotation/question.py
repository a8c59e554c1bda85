"""What people are asked."""

from __future__ import annotations

from dataclasses import dataclass

from comity.protocols.peer_study.choices import Difference


@dataclass(frozen=True, slots=True)
class Question:
    """What people are asked, and how.

    Attributes:
        session: The session.
        classes: Names of the classes, in order.
        guidelines: What people are told about them.
        annotators: How many people label each sample.
        rule: What counts when they differ.
        mask_size: Height and width of the masks that are asked for; None where classes are.
    """

    session: str
    classes: tuple[str, ...]
    guidelines: str
    annotators: int
    rule: Difference
    mask_size: tuple[int, int] | None = None
