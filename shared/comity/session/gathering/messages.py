"""What clients and the party that gathers exchange."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from comity.contract import Json, Release
from comity.ledger.receipts import SignedStatement
from comity.tensors import Blob


class AnswerDetails(Protocol):
    """What is stated about a client's answer; a protocol has its own."""

    @property
    def round(self) -> int:
        """The round."""

    @property
    def blob(self) -> bytes:
        """Digest of what the client gets."""

    @property
    def content(self) -> dict[str, Json]:
        """All of it as a JSON object: what stands in both ledgers."""

    @property
    def subject(self) -> bytes:
        """BLAKE3 over its content: what is signed."""


Details = TypeVar("Details", bound=AnswerDetails)


@dataclass(frozen=True)
class Answer(Generic[Details]):
    """What a client gets for a round.

    Attributes:
        details: What is stated.
        statement: That, signed.
    """

    details: Details
    statement: SignedStatement


@dataclass(frozen=True)
class News(Generic[Details]):
    """What happened to a round.

    Attributes:
        kind: It is open, it is settled, or all rounds are over.
        round: The round; the last one where all are over.
        answer: What the client gets, of a settled round in which it took part.
    """

    kind: Literal["opened", "settled", "over"]
    round: int
    answer: Answer[Details] | None = None


class Gathering(Protocol[Details]):
    """The port: what the party that gathers does for a client. Every method may be repeated without harm."""

    def news(self, after: int) -> Iterator[News[Details] | None]:
        """What happens to rounds, from the first that the client is not done with.

        Args:
            after: The last round that the client is done with; 0 for none.

        Yields:
            News in order; None where there is none until others have had their turn.
        """

    def submit(self, round: int, blob: bytes, release: Release) -> None:
        """Hands in the client's blob of a round.

        Args:
            round: The round.
            blob: Its digest, which is among the session's blobs.
            release: What stands behind it.

        Raises:
            RoundOutOfOrder: The round is not open any more.
            ConflictingOffer: Another blob was submitted already.
        """

    def sit_out(self, round: int) -> None:
        """Says that the client submits nothing in a round, and need not be waited for.

        Args:
            round: The round.

        Raises:
            RoundOutOfOrder: The round is not open any more.
            ConflictingOffer: A blob was submitted already.
        """

    def confirm(self, round: int, request: SignedStatement) -> SignedStatement:
        """Signs for a blob that was taken, which then takes part in the round; charges the round once.

        Args:
            round: The round.
            request: The client's `request` about the blob's digest.

        Returns:
            The other party's `receipt` about the same.

        Raises:
            RoundOutOfOrder: No blob of the client's was taken in that round, or it is long over.
            ReceiptInvalid: The request is not the client's, or about another blob.
        """

    def fetch(self, answer: Answer[Details]) -> Blob:
        """What an answer is about.

        Raises:
            UnknownBlob: It was dropped: another round was settled since.
        """

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """Says that the client has its answer.

        Raises:
            RoundOutOfOrder: There is no such answer any more.
            ReceiptInvalid: It is not the client's, or about another answer.
        """
