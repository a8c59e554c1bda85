"""What both parties do in a round: train and offer a trajectory, and pick from the other's.

What is done is in the session's journal before anybody is told of it, so that a party that was killed goes on from its
records: it trains at most one sampling period again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from comity import faults
from comity.blobs.session_blobs import Expectation, SessionBlobs
from comity.contract import Contract, Json, Membership
from comity.errors import MalformedMessage, NonFiniteValue, RoundOutOfOrder, TrainingDiverged
from comity.protocols.assisted_learning.algorithm import JointLoss, Loss, Screening, sampled_iterations
from comity.protocols.assisted_learning.loss_table import WORST, LossTable
from comity.protocols.assisted_learning.messages import (
    Checkpoint,
    TrajectoryEncoding,
    loss_from_json,
    loss_to_json,
)
from comity.protocols.assisted_learning.race import Race
from comity.protocols.assisted_learning.schedule import Schedule, guarantees
from comity.protocols.assisted_learning.speculation import Speculation
from comity.randomness import derive, generator
from comity.store.journal import Journal
from comity.store.store import Record
from comity.tensors import Blob, Layout, State
from comity.training import AssistedDistillation, OptimizerSpec, Resume, Snapshot


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
    ) -> Iterator[Snapshot]:
        """Trains from `state` and yields the live model at iterations 0, I, 2I, … below T."""

    def losses(self, state: State, samples: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """Per-sample losses at or above 0 in float64: of all samples, or of those named."""

    def test_accuracy(self, state: State) -> float | None:
        """Accuracy on the party's test samples, 0 to 1, where it has any."""

    def test_returns(self, state: State) -> dict[str, float]:
        """Mean return of an episode in each of the party's tests, by name, where it has games."""


class Party:
    """One side of a session.

    Args:
        task: This party's model and data.
        blobs: The session's blobs at this party.
        journal: The session's journal at this party.
        contract: What was agreed.
        own: This party's part in it.
        peers: The parts of those with whom it has to do: of the learner, or of every provider.
    """

    def __init__(
        self,
        task: LocalTask,
        blobs: SessionBlobs,
        journal: Journal,
        contract: Contract,
        own: Membership,
        *peers: Membership,
        works_ahead: bool = False,
    ) -> None:
        self.task = task
        self.blobs = blobs
        self.journal = journal
        self.own = own
        self.peers = peers
        self.schedule = Schedule(contract, own, peers)
        self.rounds = contract.rounds
        self.round = 1
        self.trained: list[Checkpoint] = []
        self.assessed: dict[bytes, Loss] = {}
        self.pick: Checkpoint | None = None
        self.pick_total = math.nan
        self.work = 0.0
        self._contract = contract
        self._terms = self.schedule.terms
        self._trajectories: dict[str, list[Checkpoint]] = {}
        self._loss_table = LossTable([own.party, *(each.party for each in peers)], self._terms.objective)
        self._works_ahead = works_ahead
        self._ahead: Speculation | None = None
        self._optimizer: bytes | None = None
        self._screening: Screening | Race | None = None
        # Per-sample losses on this party's data, by digest of the model. Those of the pick outlive the process: they were
        # found block by block, and what follows must rest on the very same numbers.
        self._known: dict[bytes, Float[Tensor, " samples"]] = {}
        self._pick_losses: bytes | None = None

    @property
    def checkpoints(self) -> int:
        """Checkpoints in this party's trajectory of a round."""
        return len(sampled_iterations(self.schedule.iterations, self._terms.sampling_period))

    @property
    def encoding(self) -> TrajectoryEncoding:
        """How checkpoints cross, as the terms have it."""
        return self._terms.trajectory_encoding

    @property
    def received(self) -> list[Checkpoint]:
        """The trajectory of the round that this party chooses from, as far as it has come."""
        return self.trajectory_of(self.peers[0].party if self._provides else self.schedule.trainers(self.round)[-1])

    def trajectory_of(self, party: str) -> list[Checkpoint]:
        """What came from a party in the active round."""
        return self._trajectories.setdefault(party, [])

    def expectation(self, rounds: Sequence[int], count: int) -> Expectation:
        """What the other party may upload of some rounds."""
        layout = self.task.layout
        deltas = self.encoding == "delta"
        return Expectation("checkpoint", rounds[0], layout.size, count, layout.verify, rounds[-1], deltas)

    def begin_round(self) -> None:
        """Forgets the trajectories of the round before, and what was said of them; what was picked stays."""
        self.round += 1
        self.trained = []
        self.assessed = {}
        self._trajectories = {}
        if self.pick is not None:
            self._loss_table.keep(self.pick.digest)
        self._screening = None
        self._ahead = None
        self.blobs.begin_round()

    def replay(self, record: Record) -> None:
        """Does again, without the work, what a record says was done."""
        fields: Any = record.fields
        match record.kind:
            case "trained":
                checkpoint = Checkpoint.from_json(fields)
                self._keep_trained(checkpoint, _digest(fields["optimizer"]), record.round)
            case "received":
                self._keep_received(Checkpoint.from_json(fields), fields["party"])
            case "assessed":
                self._keep_assessed(bytes.fromhex(fields["digest"]), fields["party"], _own_loss(fields))
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
        ahead, self._ahead = self._ahead, None
        is_wanted = ahead is not None and ahead.start == start and resume is None
        for sample in ahead if ahead is not None and is_wanted else self._training(at, round, resume):
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

    def train_ahead(self) -> bool:
        """Trains for a sampling period from the first model that was received, in case that it is picked.

        False where this party does not work ahead, or there is nothing to work on.
        """
        if not self._works_ahead or not self.received:
            return False
        if self._ahead is None:
            start = self.received[0].digest
            self._ahead = Speculation(start, self._training(start, self.round, None))
        return self._ahead.advance()

    def _training(self, start: bytes, round: int, resume: Resume | None) -> Iterator[Snapshot]:
        return self.task.trajectory(
            self._view(start),
            self._terms.optimizer_spec,
            iterations=self.schedule.iterations,
            period=self._terms.sampling_period,
            round=round,
            resume=resume,
        )

    def receive(self, checkpoint: Checkpoint, round: int, party: str | None = None) -> None:
        """Takes the next checkpoint of another party's trajectory.

        Args:
            checkpoint: The checkpoint.
            round: The round.
            party: Whose it is; None where there is one other party.

        Raises:
            RoundOutOfOrder: Another index is next.
            MalformedMessage: It does not fit the contract.
            UnknownBlob: Its state dict is not here.
        """
        party = party or self.peers[0].party
        index, sampled = checkpoint.index, self.schedule.sampled(party)
        come = len(self.trajectory_of(party))
        if index != come or index >= len(sampled):
            wanted = f"index {come} of {len(sampled)}"
            raise RoundOutOfOrder(
                "a checkpoint is out of order",
                expected=wanted,
                received=f"index {index}",
                action="send the contract's trajectory in order",
            )
        if checkpoint.iteration != sampled[index]:
            raise MalformedMessage(
                f"checkpoint {index} is of another iteration",
                expected=sampled[index],
                received=checkpoint.iteration,
                action="send the models of the contract's iterations",
            )
        self.schedule.require_fitting(checkpoint.loss, party)
        self.blobs.get(checkpoint.digest)
        self.journal.append("received", round, party=party, **checkpoint.to_json())
        self._keep_received(checkpoint, party)
        faults.point("offering")

    def assess(self, digest: bytes, round: int) -> Loss:
        """This party's own loss on a model, over all of its samples.

        Raises:
            UnknownBlob: The model is not here.
            TensorMismatch: It is another model than the contract's.
        """
        self.task.layout.verify(self.blobs.get(digest))
        faults.point("evaluation")
        loss = Loss(min(float(self._losses(digest).sum()), WORST), self.task.samples)
        self.record(digest, self.own.party, loss, round)
        return loss

    def record(self, digest: bytes, party: str, loss: Loss, round: int) -> None:
        """Takes note of what a party says of a model.

        Raises:
            MalformedMessage: It is a loss over another number of samples than were agreed on.
        """
        if party != self.own.party:
            self.schedule.require_fitting(loss, party)
        self.journal.append("assessed", round, party=party, digest=digest.hex(), **loss_to_json(loss))
        self._keep_assessed(digest, party, loss)

    def missing(self, digest: bytes, but: str) -> list[str]:
        """The parties, without one, that have not said what they think of a model."""
        return self._loss_table.missing(digest, but)

    def offered(self, checkpoint: Checkpoint, to: str) -> Checkpoint:
        """A checkpoint as it is offered to a provider: where there are several, with the loss of all but that one."""
        if not self.schedule.is_shared:
            return checkpoint
        return replace(checkpoint, loss=self._loss_table.of_others(checkpoint.digest, to))

    def global_loss(self, digest: bytes) -> float:
        """A model's global loss, of which every party has said its part."""
        return self._loss_table.of_all(digest)

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
        if not math.isfinite(selection.total) or (self.schedule.is_shared and selection.total >= WORST):
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

    def drop_assessed(self) -> None:
        """Drops the models of which this party has said what it thinks, when nobody will ask again."""
        for digest in self.assessed.keys() - {each.digest for each in self.trained}:
            if self.pick is None or digest != self.pick.digest:
                self.blobs.drop(digest)

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
        """What the training guarantees the samples of each party; None without noise."""
        return guarantees(self._contract, self.own, self.peers)

    def own_model(self, digest: bytes) -> tuple[Blob, float | None] | None:
        """The model of this party's own that learned from one that crossed, and its test accuracy; None without one."""
        if not isinstance(self.task, AssistedDistillation):
            return None
        state = self.task.own_model(self._view(digest), self.rounds + 1)
        return Layout.of(state).pack(state), self.task.own_test_accuracy(state)

    def mean_return(self, total: float) -> float | None:
        """J(θ) of a global loss: the mean discounted return of all parties' episodes.

        None for other tasks, and at one of several providers, which does not know how many episodes the others have.
        """
        how = self._terms.policy_gradient
        if how is None or how.best_return is None or (self.schedule.is_shared and self._provides):
            return None
        members = (self.own, *self.peers)
        parts = sum(each.samples for each in members) if self._terms.objective == "sum" else len(members)
        return how.best_return - total / parts

    def _keep_trained(self, checkpoint: Checkpoint, optimizer: bytes | None, round: int) -> None:
        self.trained.append(checkpoint)
        if isinstance(checkpoint.loss, Loss):
            self._loss_table.record(checkpoint.digest, self.own.party, checkpoint.loss)
        self._optimizer = optimizer
        self.blobs.publish(checkpoint.digest, "checkpoint", round)

    def _keep_received(self, checkpoint: Checkpoint, party: str) -> None:
        self.trajectory_of(party).append(checkpoint)
        if isinstance(checkpoint.loss, Loss):
            self._loss_table.record(checkpoint.digest, party, checkpoint.loss)
        # The offer may be repeated after the blob was dropped.
        self.blobs.settle(checkpoint.digest)

    def _keep_assessed(self, digest: bytes, party: str, loss: Loss) -> None:
        self._loss_table.record(digest, party, loss)
        if party == self.own.party:
            self.assessed[digest] = loss

    def _keep_pick(self, index: int, total: float, losses: bytes | None) -> Checkpoint:
        self.pick = self.received[index]
        self.pick_total = total
        self._pick_losses = losses
        self._known.clear()
        self._screening = None
        return self.pick

    def _screened(self) -> Screening | Race:
        """The screening of what was received, with everything added of which the others have said what they think."""
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
            others = self._of_others(checkpoint)
            if others is None:
                break
            known = self._losses(first) if checkpoint.digest == first else None
            self._screening.add(checkpoint.index, others, known)
        return self._screening

    def _of_others(self, checkpoint: Checkpoint) -> Loss | JointLoss | None:
        """The loss of all other parties on a checkpoint that was received; None where not all have said theirs."""
        if self._provides:
            return checkpoint.loss
        own = self.own.party
        return None if self.missing(checkpoint.digest, own) else self._loss_table.of_others(checkpoint.digest, own)

    @property
    def _provides(self) -> bool:
        return self.own.role == "provider"

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


def _own_loss(fields: Mapping[str, Any]) -> Loss:
    loss = loss_from_json(fields)
    if not isinstance(loss, Loss):
        raise MalformedMessage("a record cannot be read", expected="one party's loss", received=loss)
    return loss


def _digest(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def _pack_losses(losses: Float[Tensor, " samples"]) -> Blob:
    return Blob.of(bytearray(losses.contiguous().numpy().tobytes()))


def _ordered(losses: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    # NaN compares with nothing; a model that gives one is as bad as a model can be.
    return losses.nan_to_num(nan=float("inf"), posinf=float("inf"))
