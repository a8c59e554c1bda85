"""How a party makes its trajectory of a round: it trains, and keeps each checkpoint before a peer is told of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from comity import faults
from comity.blobs.session_blobs import SessionBlobs
from comity.errors import TrainingDiverged
from comity.ledger.ledger import in_round
from comity.privacy.leak_guard import Verdict
from comity.protocols.assisted_learning.algorithm import Loss, sampled_iterations
from comity.protocols.assisted_learning.messages import Checkpoint
from comity.protocols.assisted_learning.own_losses import AssistedTask, OwnLosses
from comity.protocols.assisted_learning.schedule import Schedule
from comity.protocols.assisted_learning.speculation import Speculation
from comity.session.verdicts import Verdicts
from comity.store.journal import Journal
from comity.tensors import Layout, State
from comity.training import AssistedDistillation, Resume, Snapshot


class TrajectoryMaker:
    """Trains, and makes checkpoints of it.

    Args:
        task: This party's model and data.
        blobs: The session's blobs at this party.
        journal: The session's journal at this party.
        schedule: How long it trains.
        losses: Its losses on models.
        verdicts: Where it is recorded what the leak guard found; None where it is not needed.
    """

    def __init__(
        self,
        task: AssistedTask,
        blobs: SessionBlobs,
        journal: Journal,
        schedule: Schedule,
        losses: OwnLosses,
        verdicts: Verdicts | None = None,
    ) -> None:
        self.trained: list[Checkpoint] = []
        self._found: list[Verdict] = []
        self._verdicts = verdicts
        self._task = task
        self._blobs = blobs
        self._journal = journal
        self._schedule = schedule
        self._losses = losses
        self._ahead: Speculation | None = None
        self._optimizer: bytes | None = None

    @property
    def rows_held(self) -> float | None:
        """Share of the rows that the leak guard held back in the round so far; None without a leak guard."""
        rows = sum(each.rows for each in self._found)
        return sum(each.held_rows for each in self._found) / rows if rows else None

    @property
    def checkpoints(self) -> int:
        """Checkpoints in this party's trajectory of a round."""
        return len(sampled_iterations(self._schedule.iterations, self._schedule.terms.sampling_period))

    def train(self, start: bytes, round: int) -> Iterator[Checkpoint]:
        """Trains from a model and makes the trajectory's checkpoints, each as soon as its model is there.

        Goes on after the checkpoints that are there already.

        Args:
            start: Digest of the model.
            round: The round.

        Raises:
            TrainingDiverged: A loss became NaN or infinite.
            ReleaseRefused: The leak guard found that a checkpoint would give samples away.
        """
        if len(self.trained) == self.checkpoints:
            return
        at, resume = start, None
        if self.trained:
            at = self.trained[-1].digest
            resume = Resume(self.trained[-1].iteration, self._optimizer_state())
        ahead, self._ahead = self._ahead, None
        is_wanted = ahead is not None and ahead.start == start and resume is None
        for snapshot in ahead if ahead is not None and is_wanted else self._training(at, round, resume):
            faults.point("training")
            index = len(self.trained)
            # What is told of a model is told of the model as it is sent.
            digest = self._passed_on(start, snapshot, round) if index == 0 else self._released(snapshot, round)
            optimizer = self._pack_optimizer(snapshot.optimizer)
            loss = self._finite_loss(digest, round, snapshot.iteration)
            checkpoint = Checkpoint(index, snapshot.iteration, digest, loss)
            before = self._optimizer
            state = None if optimizer is None else optimizer.hex()
            found = None if snapshot.verdict is None else snapshot.verdict.to_json()
            self._journal.append("trained", round, **checkpoint.to_json(), optimizer=state, verdict=found)
            self.keep(checkpoint, optimizer, snapshot.verdict, round)
            if before is not None and before != optimizer:
                self._blobs.drop(before)
            yield checkpoint

    def train_ahead(self, start: bytes, round: int) -> bool:
        """Trains for a sampling period from a model that may be picked; False when there is nothing left to do."""
        if self._ahead is None:
            self._ahead = Speculation(start, self._training(start, round, None))
        return self._ahead.advance()

    def keep(self, checkpoint: Checkpoint, optimizer: bytes | None, verdict: Verdict | None, round: int) -> None:
        """Takes note of a checkpoint that is durable, and lets the other party have it."""
        self.trained.append(checkpoint)
        if verdict is not None:
            self._found.append(verdict)
        self._optimizer = optimizer
        self._blobs.publish(checkpoint.digest, "checkpoint", in_round(round))

    def begin_round(self) -> None:
        """Forgets the trajectory of the round before."""
        self.trained = []
        self._found = []
        self._ahead = None

    @property
    def kept(self) -> State | None:
        """What the last training kept, where the next one begins with it; None else, and before the first."""
        return self._optimizer_state() if self.needed is not None else None

    @property
    def needed(self) -> bytes | None:
        """Digest of the blob that the next round's training begins with; None for none."""
        return self._optimizer if isinstance(self._task, AssistedDistillation) and self._task.continues else None

    def _training(self, start: bytes, round: int, resume: Resume | None) -> Iterator[Snapshot]:
        if isinstance(self._task, AssistedDistillation):
            return self._task.trajectory(
                self._losses.view(start),
                self._schedule.terms.optimizer_spec(round),
                iterations=self._schedule.iterations,
                period=self._schedule.terms.sampling_period,
                round=round,
                resume=resume,
                last=self.kept if resume is None else None,
            )
        return self._task.trajectory(
            self._losses.view(start),
            self._schedule.terms.optimizer_spec(round),
            iterations=self._schedule.iterations,
            period=self._schedule.terms.sampling_period,
            round=round,
            resume=resume,
        )

    def _finite_loss(self, digest: bytes, round: int, iteration: int) -> Loss:
        total = float(self._losses.of(digest).sum())
        if not math.isfinite(total):
            raise TrainingDiverged(
                f"training diverged in round {round} at iteration {iteration}",
                expected="a finite loss",
                received=total,
                action="lower the session's learning_rate",
            )
        return Loss(total, self._task.judged)

    def _pack_optimizer(self, state: State) -> bytes | None:
        return self._blobs.add(Layout.of(state).pack(state)).digest if state else None

    def _passed_on(self, start: bytes, snapshot: Snapshot, round: int) -> bytes:
        """The model that a trajectory begins with: it came from a peer, left before, or is the contract's own."""
        if self._verdicts is not None and snapshot.verdict is not None:
            self._verdicts.warn("checkpoint", in_round(round), snapshot.verdict)
        if self._verdicts is not None and not self._verdicts.may_leave(start):
            self._verdicts.record("checkpoint", in_round(round), start, Verdict())
        return start

    def _released(self, snapshot: Snapshot, round: int) -> bytes:
        """Keeps a model as it is sent, once it was found that it may be, and that is recorded."""
        units, verdict = in_round(round), snapshot.verdict
        if verdict is not None and verdict.is_refused and self._verdicts is not None:
            self._verdicts.refuse("checkpoint", units, f"iteration {snapshot.iteration}", verdict)
        if verdict is not None:
            verdict.require()
        digest = self._blobs.release(self._task.layout.pack(snapshot.state), "checkpoint", units).digest
        if verdict is not None and self._verdicts is not None:
            self._verdicts.record("checkpoint", units, digest, verdict)
        return digest

    def _optimizer_state(self) -> State:
        return {} if self._optimizer is None else Layout.unpack(self._blobs.get(self._optimizer))
