"""What a learner and its providers exchange."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import torch

from comity.contract import Release, Retention
from comity.ledger.ledger import Units
from comity.ledger.receipts import SignedStatement
from comity.tensors import Layout

KEPT: Retention = "round"
"""How long a learner keeps a provider's gradient: until its round has ended."""


def gradient_layout(parameters: int) -> Layout:
    """Layout of a gradient: all parameters in a row, float32, in the order of the model's parameters."""
    return Layout.of({"gradient": torch.empty(parameters)})


@dataclass(frozen=True, slots=True)
class Gradient:
    """A provider's answer in a round.

    Attributes:
        blob: Digest of the gradient; None where nothing of it was left to send.
        release: What stands behind it.
        receipt: The provider's signature for the round, about the model that it was asked at.
    """

    blob: bytes | None
    release: Release
    receipt: SignedStatement


class Bargaining(Protocol):
    """The port: what a provider does for a learner. Every method may be repeated without harm."""

    def differentiate(
        self,
        round: int,
        model: bytes,
        request: SignedStatement,
        withdrawals: Sequence[SignedStatement],
        arrived: Sequence[Units] = (),
    ) -> Future[Gradient]:
        """The provider's gradient at a model.

        Args:
            round: The round.
            model: Digest of the model, which is among the session's blobs.
            request: The learner's signature for the round, about the model.
            withdrawals: What the learner has gone on without since the provider's last receipt.
            arrived: Rounds whose gradients have come, as far as the provider was not told.

        Raises:
            RoundOutOfOrder: The round is over, or none of the session's.
        """

    def acknowledge(self, units: Units) -> None:
        """The learner has the gradients of some rounds."""
