"""What both parties do in a round: train and offer a trajectory, and pick from the other's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor

from comity.contract import Contract, Membership
from comity.errors import MalformedMessage, NonFiniteValue, RoundOutOfOrder, TrainingDiverged
from comity.protocols.assisted_learning.algorithm import (
    Loss,
    Screening,
    Selection,
    sampled_iterations,
    split_iterations,
)
from comity.protocols.assisted_learning.messages import AssistedLearningTerms, Checkpoint
from comity.session.blobs import Expectation, SessionBlobs
from comity.tensors import Blob, Layout, State
from comity.training import OptimizerSpec


class LocalTask(Protocol):
    """A party's model and data, as far as this protocol needs them."""

    layout: Layout
    initial_state: State

    @property
    def samples(self) -> int:
        """Number of training samples."""

    def trajectory(
        self, state: State, optimizer: OptimizerSpec, *, iterations: int, period: int, round: int
    ) -> Iterator[tuple[int, State]]:
        """Trains from `state` and yields the live model at iterations 0, I, 2I, … below T."""

    def losses(self, state: State, samples: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """Per-sample losses at or above 0 in float64: of all samples, or of those named."""

    def test_accuracy(self, state: State) -> float | None:
        """Accuracy on the party's test samples, 0 to 1, where it has any."""


class Party:
    """One side of a session.

    Args:
        task: This party's model and data.
        blobs: The session's blobs at this party.
        contract: What was agreed.
        own: This party's part in it.
        peer: The other party's part in it.
    """

    def __init__(
        self, task: LocalTask, blobs: SessionBlobs, contract: Contract, own: Membership, peer: Membership
    ) -> None:
        if not isinstance(contract.terms, AssistedLearningTerms):
            raise MalformedMessage(
                "the terms are another protocol's", expected="assisted_learning", received=contract.protocol
            )
        self.task = task
        self.blobs = blobs
        self.rounds = contract.rounds
        self.terms = contract.terms
        self.peer = peer
        samples = {own.role: own.samples, peer.role: peer.samples}
        learner, provider = split_iterations(self.terms.iterations, samples["learner"], samples["provider"])
        iterations = {"learner": learner, "provider": provider}
        self.iterations = iterations[own.role]
        self._peer_sampled = sampled_iterations(iterations[peer.role], self.terms.sampling_period)
        self._screening: Screening | None = None
        self._received: list[Checkpoint] = []
        # Per-sample losses on this party's data of models that may come back, by digest of the model.
        self._known: dict[bytes, Float[Tensor, " samples"]] = {}

    @property
    def checkpoints(self) -> int:
        """Checkpoints in this party's trajectory of a round."""
        return len(sampled_iterations(self.iterations, self.terms.sampling_period))

    @property
    def peer_checkpoints(self) -> int:
        """Checkpoints in the other party's trajectory of a round."""
        return len(self._peer_sampled)

    def expectation(self, round: int) -> Expectation:
        """What the other party may upload in a round."""
        layout = self.task.layout
        return Expectation("checkpoint", round, layout.size, self.peer_checkpoints, layout.verify)

    def train(self, start: Blob, round: int) -> Iterator[Checkpoint]:
        """Trains from a model and makes the trajectory's checkpoints, each as soon as its model is there.

        Raises:
            TrainingDiverged: A loss became NaN or infinite.
        """
        period = self.terms.sampling_period
        models = self.task.trajectory(
            self._view(start), self.terms.optimizer_spec, iterations=self.iterations, period=period, round=round
        )
        for index, (iteration, state) in enumerate(models):
            blob = start if index == 0 else self.task.layout.pack(state)
            loss = self._own_loss(blob)
            if not _is_finite(loss):
                raise TrainingDiverged(
                    f"training diverged in round {round} at iteration {iteration}",
                    expected="a finite loss",
                    received=loss.sum,
                    action="lower the session's learning_rate",
                )
            self.blobs.publish(blob, "checkpoint", round)
            yield Checkpoint(index, iteration, blob, loss)

    def receive(self, checkpoint: Checkpoint) -> None:
        """Takes the next checkpoint of the other party's trajectory.

        Raises:
            RoundOutOfOrder: Another index is next.
            MalformedMessage: It does not fit the contract.
        """
        index = checkpoint.index
        if index != len(self._received) or index >= self.peer_checkpoints:
            wanted = f"index {len(self._received)} of {self.peer_checkpoints}"
            raise RoundOutOfOrder(
                "a checkpoint is out of order",
                expected=wanted,
                received=f"index {index}",
                action="send the contract's trajectory in order",
            )
        if checkpoint.iteration != self._peer_sampled[index]:
            raise MalformedMessage(
                f"checkpoint {index} is of another iteration",
                expected=self._peer_sampled[index],
                received=checkpoint.iteration,
                action="send the models of the contract's iterations",
            )
        if checkpoint.loss.count != self.peer.samples:
            raise MalformedMessage(
                "the loss is over another number of samples",
                expected=self.peer.samples,
                received=checkpoint.loss.count,
                action="evaluate on the samples that were agreed on",
            )
        digest = checkpoint.blob.digest
        if self._screening is None:
            hardness = self._losses(checkpoint.blob)
            self._screening = Screening(
                self._evaluate, hardness, block=self.terms.evaluation_batch_size, objective=self.terms.objective
            )
        self._received.append(checkpoint)
        self._screening.add(checkpoint.index, checkpoint.loss, self._known.get(digest))

    def advance(self) -> bool:
        """Evaluates a block of what was received; False when there is nothing to gain by it."""
        return self._screening is not None and self._screening.advance()

    def select(self) -> tuple[Checkpoint, Selection]:
        """The received checkpoint of least global loss. The next one received begins a new trajectory.

        Raises:
            NonFiniteValue: No checkpoint has a finite global loss.
        """
        if self._screening is None:
            raise ValueError("nothing was received")
        selection = self._screening.select()
        picked = self._received[selection.index]
        if not _is_finite(Loss(selection.total, 1)):
            raise NonFiniteValue(
                "no checkpoint has a finite global loss",
                expected="a finite loss",
                received=selection.total,
                action="lower the learning_rate",
            )
        self._screening = None
        self._received = []
        self._known = {picked.blob.digest: selection.losses}
        return picked, selection

    def _own_loss(self, blob: Blob) -> Loss:
        return Loss(float(self._losses(blob).sum()), self.task.samples)

    def _losses(self, blob: Blob) -> Float[Tensor, " samples"]:
        if blob.digest not in self._known:
            self._known[blob.digest] = _ordered(self.task.losses(self._view(blob)))
        return self._known[blob.digest]

    def _evaluate(self, index: int, samples: Int[Tensor, " block"]) -> Float[Tensor, " block"]:
        return _ordered(self.task.losses(self._view(self._received[index].blob), samples))

    def _view(self, blob: Blob) -> State:
        return self.task.layout.view(blob.data)


def _is_finite(loss: Loss) -> bool:
    return loss.sum < float("inf")


def _ordered(losses: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    # NaN compares with nothing; a model that gives one is as bad as a model can be.
    return losses.nan_to_num(nan=float("inf"), posinf=float("inf"))
