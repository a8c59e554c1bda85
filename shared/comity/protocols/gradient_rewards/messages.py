"""What clients and server exchange."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import torch

from comity.contract import Json, Release, Retention
from comity.ledger.receipts import SignedStatement, subject_of
from comity.tensors import Layout

KEPT: Retention = "round"
"""How long a server keeps a client's update: until its round has ended."""


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
    def content(self) -> dict[str, Json]:
        """All of it as a JSON object: what stands in both ledgers."""
        return asdict(self) | {"entries": self.entries.hex()}

    @property
    def subject(self) -> bytes:
        """BLAKE3 over its content: what the server signs."""
        return subject_of(self.content)


@dataclass(frozen=True, slots=True)
class Reward:
    """What a client gets for a round.

    Attributes:
        details: What the server states.
        statement: That, signed.
    """

    details: RewardDetails
    statement: SignedStatement


@dataclass(frozen=True, slots=True)
class News:
    """What happened to a round.

    Attributes:
        kind: It is open for updates, it is settled, or all rounds are over.
        round: The round; the last one where all are over.
        reward: What the client gets, of a settled round in which it took part.
    """

    kind: Literal["opened", "settled", "over"]
    round: int
    reward: Reward | None = None


class Rewarding(Protocol):
    """The port: what a server does for a client. Every method may be repeated without harm."""

    def news(self, after: int) -> Iterator[News | None]:
        """What happens to rounds, from the first that the client is not done with.

        Args:
            after: The last round that the client is done with; 0 for none.

        Yields:
            News in order; None where there is none until others have had their turn.
        """

    def submit(self, round: int, update: bytes, release: Release) -> None:
        """Gives the server the client's update of a round.

        Args:
            round: The round.
            update: Digest of the normalized update, which is among the session's blobs.
            release: What stands behind it.

        Raises:
            RoundOutOfOrder: The round is not open any more.
            ConflictingOffer: Another update was submitted already.
        """

    def sit_out(self, round: int) -> None:
        """Says that the client submits nothing in a round, and need not be waited for.

        Args:
            round: The round.

        Raises:
            RoundOutOfOrder: The round is not open any more.
            ConflictingOffer: An update was submitted already.
        """

    def confirm(self, round: int, request: SignedStatement) -> SignedStatement:
        """Signs for an update that the server took, which then takes part in the round; charges the round once.

        Args:
            round: The round.
            request: The client's `request` about the update's digest.

        Returns:
            The server's `receipt` about the same.

        Raises:
            RoundOutOfOrder: The server took no update of the client's in that round, or it is long over.
            ReceiptInvalid: The request is not the client's, or about another update.
        """

    def fetch(self, reward: Reward) -> bytes:
        """The sparse encoding of a reward's entries.

        Raises:
            UnknownBlob: The server has dropped it: another round was settled since.
        """

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """Tells the server that the client has its reward.

        Raises:
            RoundOutOfOrder: There is no such reward any more.
            ReceiptInvalid: It is not the client's, or about another reward.
        """
