"""What both parties do in a round: train and offer a trajectory, and pick from the other's.

What is done is in the session's journal before anybody is told of it, so that a party that was killed goes on from its
records: it trains at most one sampling period again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from comity.contract import Contract, Membership
from comity.errors import MalformedMessage, NonFiniteValue, RoundOutOfOrder, TrainingDiverged
from comity.privacy import NOT_COVERED, agreed
from comity.protocols.assisted_learning.algorithm import (
    Loss,
    Screening,
    sampled_iterations,
    split_iterations,
)
from comity.protocols.assisted_learning.messages import AssistedLearningTerms, Checkpoint, TrajectoryEncoding
from comity.protocols.assisted_learning.race import Race
from comity.randomness import derive, generator
from comity.session import faults
from comity.session.blobs import Expectation, SessionBlobs
from comity.session.events import Json
from comity.session.journal import Journal
from comity.session.store import Record
from comity.tensors import Blob, Layout, State
from comity.training import AssistedDistillation, OptimizerSpec, Resume, Sample, sampling_rate


class LocalTask(Protocol):
    """A party's model and data, as far as this protocol needs them."""

    layout: Layout
    initial_state: State

    @property
    def samples(self) -> int:
        """Number of training samples."""

    def trajectory(
        self,
        state: State,
        optimizer: OptimizerSpec,
        *,
        iterations: int,
        period: int,
        round: int,
        resume: Resume | None = None,
    ) -> Iterator[Sample]:
        """Trains from `state` and yields the live model at iterations 0, I, 2I, … below T."""

    def losses(self, state: State, samples: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """Per-sample losses at or above 0 in float64: of all samples, or of those named."""

    def test_accuracy(self, state: State) -> float | None:
        """Accuracy on the party's test samples, 0 to 1, where it has any."""

    def test_returns(self, state: State) -> dict[str, float]:
        """Mean return of an episode in each of the party's tests, by name, where it has games."""


def session_steps(contract: Contract, own: Membership, peer: Membership) -> int:
    """Local steps of a party in a whole session: those up to the last sampled iteration, in every round."""
    terms = contract.terms
    if not isinstance(terms, AssistedLearningTerms):
        return 0
    samples = {own.role: own.samples, peer.role: peer.samples}
    learner, provider = split_iterations(terms.iterations, samples["learner"], samples["provider"])
    iterations = {"learner": learner, "provider": provider}[own.role]
    return contract.rounds * sampled_iterations(iterations, terms.sampling_period)[-1]


class Party:
    """One side of a session.

    Args:
        task: This party's model and data.
        blobs: The session's blobs at this party.
        journal: The session's journal at this party.
        contract: What was agreed.
        own: This party's part in it.
        peer: The other party's part in it.
    """

    def __init__(
        self,
        task: LocalTask,
        blobs: SessionBlobs,
        journal: Journal,
        contract: Contract,
        own: Membership,
        peer: Membership,
    ) -> None:
        if not isinstance(contract.terms, AssistedLearningTerms):
            raise MalformedMessage(
                "the terms are another protocol's", expected="assisted_learning", received=contract.protocol
            )
        self.task = task
        self.blobs = blobs
        self.journal = journal
        self.rounds = contract.rounds
        self.own = own
        self.peer = peer
        self.trained: list[Checkpoint] = []
        self.received: list[Checkpoint] = []
        self.pick: Checkpoint | None = None
        self.pick_total = math.nan
        self.work = 0.0
        self._terms = contract.terms
        self._contract = contract
        samples = {own.role: own.samples, peer.role: peer.samples}
        learner, provider = split_iterations(self._terms.iterations, samples["learner"], samples["provider"])
        iterations = {"learner": learner, "provider": provider}
        self._iterations = iterations[own.role]
        self._peer_sampled = sampled_iterations(iterations[peer.role], self._terms.sampling_period)
        self._optimizer: bytes | None = None
        self._screening: Screening | Race | None = None
        # Per-sample losses on this party's data, by digest of the model. Those of the pick outlive the process: they were
        # found block by block, and what follows must rest on the very same numbers.
        self._known: dict[bytes, Float[Tensor, " samples"]] = {}
        self._pick_losses: bytes | None = None

    @property
    def checkpoints(self) -> int:
        """Checkpoints in this party's trajectory of a round."""
        return len(sampled_iterations(self._iterations, self._terms.sampling_period))

    @property
    def encoding(self) -> TrajectoryEncoding:
        """How checkpoints cross, as the terms have it."""
        return self._terms.trajectory_encoding

    @property
    def peer_checkpoints(self) -> int:
        """Checkpoints in the other party's trajectory of a round."""
        return len(self._peer_sampled)

    def expectation(self, round: int) -> Expectation:
        """What the other party may upload in a round."""
        layout = self.task.layout
        deltas = self.encoding == "delta"
        return Expectation("checkpoint", round, layout.size, self.peer_checkpoints, layout.verify, deltas)

    def begin_round(self) -> None:
        """Forgets the trajectories of the round before; what was picked stays."""
        self.trained = []
        self.received = []
        self._screening = None
        self.blobs.begin_round()

    def replay(self, record: Record) -> None:
        """Does again, without the work, what a record says was done."""
        fields: Any = record.fields
        match record.kind:
            case "trained":
                checkpoint = Checkpoint.from_json(fields)
                self._keep_trained(checkpoint, _digest(fields["optimizer"]), record.round)
            case "received":
                self._keep_received(Checkpoint.from_json(fields))
            case "picked":
                self._keep_pick(fields["pick"], fields["total"], _digest(fields["losses"]))

    def train(self, start: bytes, round: int) -> Iterator[Checkpoint]:
        """Trains from a model and makes the trajectory's checkpoints, each as soon as its model is there.

        Goes on after the checkpoints that are there already.

        Args:
            start: Digest of the model.
            round: The round.

        Raises:
            TrainingDiverged: A loss became NaN or infinite.
        """
        if len(self.trained) == self.checkpoints:
            return
        at, resume = start, None
        if self.trained:
            at = self.trained[-1].digest
            resume = Resume(self.trained[-1].iteration, self._optimizer_state())
        samples = self.task.trajectory(
            self._view(at),
            self._terms.optimizer_spec,
            iterations=self._iterations,
            period=self._terms.sampling_period,
            round=round,
            resume=resume,
        )
        for sample in samples:
            faults.point("training")
            index = len(self.trained)
            digest = start if index == 0 else self.blobs.add(self.task.layout.pack(sample.state)).digest
            optimizer = self._pack_optimizer(sample.optimizer)
            checkpoint = Checkpoint(index, sample.iteration, digest, self._finite_loss(digest, round, sample.iteration))
            before = self._optimizer
            state = None if optimizer is None else optimizer.hex()
            self.journal.append("trained", round, **checkpoint.to_json(), optimizer=state)
            self._keep_trained(checkpoint, optimizer, round)
            if before is not None and before != optimizer:
                self.blobs.drop(before)
            yield checkpoint

    def receive(self, checkpoint: Checkpoint, round: int) -> None:
        """Takes the next checkpoint of the other party's trajectory.

        Raises:
            RoundOutOfOrder: Another index is next.
            MalformedMessage: It does not fit the contract.
            UnknownBlob: Its state dict is not here.
        """
        index = checkpoint.index
        if index != len(self.received) or index >= self.peer_checkpoints:
            wanted = f"index {len(self.received)} of {self.peer_checkpoints}"
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
        self.blobs.get(checkpoint.digest)
        self.journal.append("received", round, **checkpoint.to_json())
        self._keep_received(checkpoint)
        faults.point("offering")

    def advance(self, *, whole: bool = False) -> bool:
        """Evaluates a block of what was received; False when there is nothing to gain by it.

        Args:
            whole: Whether all of the trajectory was received.
        """
        if not self.received:
            return False
        faults.point("evaluation")
        return self._screened().advance(whole=whole)

    def select(self, round: int) -> Checkpoint:
        """Picks the received checkpoint of least global loss, once all were received.

        Raises:
            NonFiniteValue: No checkpoint has a finite global loss.
        """
        selection = self._screened().select()
        if not math.isfinite(selection.total):
            raise NonFiniteValue(
                "no checkpoint has a finite global loss",
                expected="a finite loss",
                received=selection.total,
                action="lower the learning_rate",
            )
        faults.point("selection")
        self.work = selection.work
        losses = self.blobs.add(_pack_losses(selection.losses)).digest
        fields: dict[str, Json] = {"pick": selection.index, "total": selection.total, "losses": losses.hex()}
        self.journal.append("picked", round, **fields)
        return self._keep_pick(selection.index, selection.total, losses)

    def retain(self, *more: bytes) -> None:
        """Drops every blob but the pick, its losses, and those named."""
        kept = {self._pick_losses, self.pick.digest if self.pick else None, *more}
        self.blobs.keep({digest for digest in kept if digest is not None})

    def test_accuracy(self, digest: bytes) -> float | None:
        """Accuracy of a model on this party's test samples, 0 to 1, where it has any."""
        return self.task.test_accuracy(self._view(digest))

    def test_returns(self, digest: bytes) -> dict[str, float]:
        """Mean return of an episode under a policy in each of this party's tests, where it has games."""
        return self.task.test_returns(self._view(digest))

    def guarantees(self) -> dict[str, Json] | None:
        """What the training guarantees the samples of each party, by role, as the contract has it; None without noise."""
        terms = self._terms
        if terms.privacy is None:
            return None
        found: dict[str, Json] = {"not_covered": NOT_COVERED}
        for one, other in ((self.own, self.peer), (self.peer, self.own)):
            rate = sampling_rate(one.samples, terms.batch_size)
            steps = session_steps(self._contract, one, other)
            mechanism, guarantee = agreed(terms.privacy, sampling_rate=rate, steps=steps)
            found[one.role] = {**asdict(guarantee), "noise_multiplier": mechanism.noise_multiplier}
        return found

    def own_model(self, digest: bytes) -> tuple[Blob, float | None] | None:
        """The model of this party's own that learned from one that crossed, and its test accuracy; None without one."""
        if not isinstance(self.task, AssistedDistillation):
            return None
        state = self.task.own_model(self._view(digest), self.rounds + 1)
        return Layout.of(state).pack(state), self.task.own_test_accuracy(state)

    def mean_return(self, total: float) -> float | None:
        """J(θ) of a global loss: the mean discounted return of both parties' episodes; None for other tasks."""
        how = self._terms.policy_gradient
        if how is None or how.best_return is None:
            return None
        parts = self.task.samples + self.peer.samples if self._terms.objective == "sum" else 2
        return how.best_return - total / parts

    def _keep_trained(self, checkpoint: Checkpoint, optimizer: bytes | None, round: int) -> None:
        self.trained.append(checkpoint)
        self._optimizer = optimizer
        self.blobs.publish(checkpoint.digest, "checkpoint", round)

    def _keep_received(self, checkpoint: Checkpoint) -> None:
        self.received.append(checkpoint)
        # The offer may be repeated after the blob was dropped.
        self.blobs.settle(checkpoint.digest)

    def _keep_pick(self, index: int, total: float, losses: bytes | None) -> Checkpoint:
        self.pick = self.received[index]
        self.pick_total = total
        self._pick_losses = losses
        self._known.clear()
        self._screening = None
        return self.pick

    def _screened(self) -> Screening | Race:
        """The screening of what was received, with everything added that came."""
        first = self.received[0].digest
        if self._screening is None:
            block, objective = self._terms.evaluation_batch_size, self._terms.objective
            if self._terms.screening == "race":
                # The same order in every round: with whose data it has nothing to do.
                draw = generator(derive(self._contract.seed, "race"))
                order = torch.randperm(self.task.samples, generator=draw)
                self._screening = Race(self._evaluate, order, block=block, objective=objective)
            else:
                self._screening = Screening(self._evaluate, self._losses(first), block=block, objective=objective)
        for checkpoint in self.received[len(self._screening) :]:
            known = self._losses(first) if checkpoint.digest == first else None
            self._screening.add(checkpoint.index, checkpoint.loss, known)
        return self._screening

    def _finite_loss(self, digest: bytes, round: int, iteration: int) -> Loss:
        total = float(self._losses(digest).sum())
        if not math.isfinite(total):
            raise TrainingDiverged(
                f"training diverged in round {round} at iteration {iteration}",
                expected="a finite loss",
                received=total,
                action="lower the session's learning_rate",
            )
        return Loss(total, self.task.samples)

    def _losses(self, digest: bytes) -> Float[Tensor, " samples"]:
        if digest not in self._known:
            if self.pick is not None and self._pick_losses is not None and digest == self.pick.digest:
                self._known[digest] = torch.frombuffer(self.blobs.get(self._pick_losses).data, dtype=torch.float64)
            else:
                self._known[digest] = _ordered(self.task.losses(self._view(digest)))
        return self._known[digest]

    def _evaluate(self, index: int, samples: Int[Tensor, " block"]) -> Float[Tensor, " block"]:
        return _ordered(self.task.losses(self._view(self.received[index].digest), samples))

    def _view(self, digest: bytes) -> State:
        return self.task.layout.view(self.blobs.get(digest).data)

    def _pack_optimizer(self, state: State) -> bytes | None:
        return self.blobs.add(Layout.of(state).pack(state)).digest if state else None

    def _optimizer_state(self) -> State:
        return {} if self._optimizer is None else Layout.unpack(self.blobs.get(self._optimizer))


def _digest(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def _pack_losses(losses: Float[Tensor, " samples"]) -> Blob:
    return Blob.of(bytearray(losses.contiguous().numpy().tobytes()))


def _ordered(losses: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    # NaN compares with nothing; a model that gives one is as bad as a model can be.
    return losses.nan_to_num(nan=float("inf"), posinf=float("inf"))
