"""What every party said of the models of a round: the learner's book, by which the global loss is added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from comity.protocols.assisted_learning.algorithm import JointLoss, Loss
from comity.protocols.assisted_learning.choices import Objective

WORST = 1e300
"""What stands for a loss that is not finite: as bad as a model can be, and a number that can be added and sent."""


class LossTable:
    """Losses by model and party.

    Args:
        parties: All parties of the session.
        objective: How their losses are added.
    """

    def __init__(self, parties: Sequence[str], objective: Objective) -> None:
        self._parties = parties
        self._objective: Objective = objective
        self._losses: dict[bytes, dict[str, Loss]] = {}

    def record(self, digest: bytes, party: str, loss: Loss) -> None:
        """Takes note of a party's loss on a model."""
        self._losses.setdefault(digest, {})[party] = loss

    def missing(self, digest: bytes, but: str) -> list[str]:
        """The parties, without one, that have not said what they think of a model."""
        said = self._losses.get(digest, {})
        return [party for party in self._parties if party not in said and party != but]

    def of_others(self, digest: bytes, but: str) -> JointLoss:
        """What the losses of all parties but one add to a model's global loss; each must have said its own."""
        return JointLoss.of(self._values(digest, (party for party in self._parties if party != but)))

    def of_all(self, digest: bytes) -> float:
        """A model's global loss, of which every party must have said its part."""
        return math.fsum(self._values(digest, self._parties))

    def keep(self, digest: bytes) -> None:
        """Forgets every model but one."""
        self._losses = {digest: self._losses.get(digest, {})}

    def _values(self, digest: bytes, parties: Iterable[str]) -> list[float]:
        said = self._losses[digest]
        # What a party says is finite, and may be too great to be added to another's.
        return [min(said[party].value(self._objective), WORST) for party in parties]
