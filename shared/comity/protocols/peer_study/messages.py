"""What clients and server exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from comity.contract import Json
from comity.ledger.receipts import subject_of
from comity.session.gathering.messages import Answer, Gathering, News


@dataclass(frozen=True, slots=True)
class AverageDetails:
    """What the server states about an average.

    Attributes:
        round: The round.
        model: Digest of the average of the clients' models.
        participants: How many clients' models it is of.
    """

    round: int
    model: bytes
    participants: int

    @property
    def blob(self) -> bytes:
        """What the client gets."""
        return self.model

    @property
    def content(self) -> dict[str, Json]:
        """All of it as a JSON object: what stands in both ledgers."""
        return {"round": self.round, "model": self.model.hex(), "participants": self.participants}

    @property
    def subject(self) -> bytes:
        """BLAKE3 over its content: what the server signs."""
        return subject_of(self.content)


Average = Answer[AverageDetails]
"""What a client gets for a round."""

AverageNews = News[AverageDetails]
"""What happened to a round."""


class Averaging(Gathering[AverageDetails], Protocol):
    """The port: what a server does for a client. Every method may be repeated without harm."""

    def await_labels(self, round: int, count: int) -> None:
        """Says that the client's people have samples to label before it can take part in a round.

        Args:
            round: The round.
            count: How many samples.

        Raises:
            RoundOutOfOrder: The round is not open any more.
        """

    def upload(self, round: int, sample: bytes) -> None:
        """Hands in one sample that this client's people released, in a session whose mode is `upload`.

        Args:
            round: The round.
            sample: Digest of its blob, which is kept at this client.

        Raises:
            RoundOutOfOrder: The round is not open any more.
            MalformedMessage: The session is of another mode, or more samples came than there can be.
        """
