"""What a client and a server exchange."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from comity.ledger.receipts import SignedStatement
from comity.protocols.learning_to_help.terms import LearningToHelpTerms
from comity.protocols.learning_to_help.training import Fitting
from comity.session.metering.tally import Metered, Tally

MOST_INPUTS = 1024
"""Inputs of one question."""
MOST_COPIES = 2**32 - 1
"""Copies of the classifier that have a number in a message."""


def metered(requests: int) -> Metered:
    """What is charged: each input that is answered, once.

    Args:
        requests: How many are bought.
    """
    return Metered("request", "features", "answer", bought=requests, credit=min(requests, 10 * MOST_INPUTS))


def copies_of(samples: int, terms: LearningToHelpTerms) -> int:
    """How many copies of the classifier leave, where the client trains the rejector with them.

    Args:
        samples: The server's samples.
        terms: The contract's terms.
    """
    steps = Fitting(terms.server_epochs, terms.batch_size).steps(samples)
    return max(-(-steps // terms.copy_every), 1)


class Helping(Protocol):
    """The port: what a server does for a client. Every method may be repeated without harm."""

    def learn(self, local: bytes, minimum: float, maximum: float) -> Future[bytes | None]:
        """Has the server train its classifier, and the rejector where that is the server's to train, for the client's model.

        Args:
            local: Digest of the client's model, which is among the session's blobs.
            minimum: What the least 8-bit feature stands for.
            maximum: What the greatest stands for.

        Returns:
            The digest of the rejector, which is among the session's blobs then; None where the client trains it.

        Raises:
            ConflictingOffer: Another model was given before.
        """

    def copy(self, index: int) -> Future[bytes]:
        """Gets a copy of the classifier, which is trained meanwhile.

        Args:
            index: Its number, from 1.

        Returns:
            Its digest; it is among the session's blobs then.

        Raises:
            RoundOutOfOrder: The server has not been asked to train, or there is no such copy.
        """

    def acknowledge(self, copy: int) -> None:
        """Tells the server that the client has a copy of the classifier, and those before it; 0 for the rejector."""

    def ask(self, first: int, count: int, features: bytes, within_ms: int) -> Future[Any]:
        """Asks for the classes of some inputs.

        Args:
            first: Number of the first; those of the others follow it.
            count: How many they are.
            features: Their 8-bit features, one input after the other.
            within_ms: How long the client waits, in milliseconds; 0 for ever.

        Returns:
            An `Answered` whose value is `first`, `count` and the classifier's outputs, one input after the other.

        Raises:
            RoundOutOfOrder: The server has not been trained.
            MalformedMessage: The features are not those of so many inputs.
            PolicyRefusal: All that was bought is answered.
            TooManyCalls: Too many wait, or what was answered is to be settled first.
            DeadlineExceeded: The time is over.
        """

    def tally(self) -> Tally:
        """See `Settling.tally`."""

    def settle(self, request: SignedStatement) -> SignedStatement:
        """See `Settling.settle`."""


Outputs = tuple[int, int, Sequence[float]]
"""The number of the first input, how many they are, and the classifier's outputs."""
