"""What learner and provider exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from blake3 import blake3

from comity.contract import Json, canonical
from comity.ledger.receipts import SignedStatement
from comity.protocols.assisted_learning.algorithm import JointLoss, Loss
from comity.protocols.assisted_learning.choices import TrajectoryEncoding


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model of a local training, with its loss on data that the receiver does not have.

    Attributes:
        index: Position in the trajectory, from 0, the model that the training began with.
        iteration: Local iterations behind it.
        digest: Digest of its state dict, which is among the session's blobs.
        loss: The loss of the party that made it; or, where a learner offers it to one of several providers, what the
            losses of all other parties add up to.
    """

    index: int
    iteration: int
    digest: bytes
    loss: Loss | JointLoss

    def to_json(self) -> dict[str, Json]:
        """The checkpoint as a JSON object."""
        place: dict[str, Json] = {"index": self.index, "iteration": self.iteration, "digest": self.digest.hex()}
        return place | loss_to_json(self.loss)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Checkpoint:
        """Reads what `to_json` gave."""
        return cls(value["index"], value["iteration"], bytes.fromhex(value["digest"]), loss_from_json(value))


def loss_to_json(loss: Loss | JointLoss) -> dict[str, Json]:
    """A loss as fields of a JSON object."""
    if isinstance(loss, JointLoss):
        return {"joint": [*loss.numbers]}
    return {"sum": loss.sum, "count": loss.count}


def loss_from_json(value: Mapping[str, Any]) -> Loss | JointLoss:
    """Reads what `loss_to_json` gave."""
    return JointLoss(tuple(value["joint"])) if "joint" in value else Loss(value["sum"], value["count"])


def delta_base(encoding: TrajectoryEncoding, checkpoint: Checkpoint, before: Checkpoint | None) -> bytes | None:
    """Digest of what a checkpoint crosses against; None where it crosses as it is.

    Args:
        encoding: What the terms say.
        checkpoint: The checkpoint.
        before: The one before it in its trajectory, which the receiver holds.
    """
    if encoding == "dense" or before is None or before.index + 1 != checkpoint.index:
        return None
    return before.digest


def trajectory_digest(round: int, checkpoints: Sequence[Checkpoint]) -> bytes:
    """BLAKE3 over a round's checkpoints of one party: for each its digest, iteration and loss, in order."""
    rows = [[c.digest.hex(), c.iteration, *loss_to_json(c.loss).values()] for c in checkpoints]
    return blake3(canonical([round, rows])).digest()


def assessment_digest(round: int, losses: Mapping[bytes, Loss]) -> bytes:
    """BLAKE3 over what a provider said of models in a round in which it did not train, in the order of their digests."""
    rows = [[digest.hex(), losses[digest].sum, losses[digest].count] for digest in sorted(losses)]
    return blake3(canonical([round, rows])).digest()


def idle() -> bool:
    """Nothing to do in the meantime."""
    return False


class Assistance(Protocol):
    """The port: what a provider does for a learner. Every method may be repeated without harm.

    Where there are several providers, a round is a chain: the learner's trajectory goes to the first that trains, its
    trajectory to the next, that of the last to the learner. What a provider is not offered it `assess`es, so that every
    choice goes by the loss of all parties.
    """

    def assess(self, round: int, digest: bytes) -> Future[Loss]:
        """Asks for the provider's loss on a model that it is to choose from no trajectory, over all of its samples.

        Args:
            round: The round.
            digest: Digest of the model, which is among the session's blobs.

        Returns:
            The loss, which may take a while, or

            - RoundOutOfOrder: The round is not on, the provider is in its own training, or has said enough in the round.
            - UnknownBlob: The model is not here.
        """

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        """Gives the provider one checkpoint of the trajectory that it chooses from, in the order of their indices.

        Raises:
            RoundOutOfOrder: The round or the index is not on.
            ConflictingOffer: The index was offered already with other content.
        """

    def close(self, round: int, count: int, request: SignedStatement) -> SignedStatement:
        """Ends the learner's part of a round, in which `count` checkpoints were offered, and charges it once.

        Args:
            round: The round.
            count: Checkpoints offered, or assessed where the provider does not train in the round.
            request: The learner's `request` about the `trajectory_digest` of the offer, or about the `assessment_digest`.

        Returns:
            The provider's `receipt` about the same.

        Raises:
            RoundOutOfOrder: The round is not on, or another number of checkpoints came.
            ReceiptInvalid: The request is not the learner's, or about another offer.
        """

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:
        """The provider's trajectory as it is made, from index `skip` on; its checkpoint 0 is the one that it picked.

        Args:
            round: A round that is closed.
            skip: Checkpoints that the learner has already.
            meanwhile: Does a piece of the learner's own work while nothing has come yet; False when there is none.

        Raises:
            RoundOutOfOrder: The round was not closed.
        """

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """Tells the provider that the learner has its whole trajectory, and all that it asked for besides.

        Args:
            round: The round.
            acknowledgement: The learner's `acknowledgement` about the `trajectory_digest` of the results, or about the
                `assessment_digest` where there are none.

        Raises:
            RoundOutOfOrder: The round is not on, or its results are not complete.
            ReceiptInvalid: It is not the learner's, or about other results.
        """
