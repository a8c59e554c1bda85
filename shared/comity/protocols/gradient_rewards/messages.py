"""What clients and server exchange."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from comity.contract import Json
from comity.ledger.receipts import subject_of
from comity.session.gathering.messages import Answer, Gathering, News
from comity.tensors import Layout


def update_layout(parameters: int) -> Layout:
    """Layout of an update: all parameters in a row, float32, in the order of the model's layout."""
    return Layout.of({"update": torch.empty(parameters)})


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """A parameter in the precision in which updates are reckoned: float32, or its own where that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@dataclass(frozen=True, slots=True)
class RewardDetails:
    """What the server states about a client's reward.

    Attributes:
        round: The round.
        contribution: ψ or φ of the client's update.
        importance: r after the round.
        fraction: q, the share of the aggregate's entries that the client gets, 0 to 1.
        kept: How many entries these are.
        entries: Digest of their sparse encoding.
        size: Length of the encoding, in bytes.
    """

    round: int
    contribution: float
    importance: float
    fraction: float
    kept: int
    entries: bytes
    size: int

    @property
    def blob(self) -> bytes:
        """What the client gets."""
        return self.entries

    @property
    def content(self) -> dict[str, Json]:
        """All of it as a JSON object: what stands in both ledgers."""
        return asdict(self) | {"entries": self.entries.hex()}

    @property
    def subject(self) -> bytes:
        """BLAKE3 over its content: what the server signs."""
        return subject_of(self.content)


Reward = Answer[RewardDetails]
"""What a client gets for a round."""

RewardNews = News[RewardDetails]
"""What happened to a round."""

Rewarding = Gathering[RewardDetails]
"""The port: what a server does for a client."""
