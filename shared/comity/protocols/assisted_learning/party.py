"""What both parties keep of a round: their own trajectory, those that came, what was said of models, and the pick.

What is done is in the session's journal before a peer is told of it, so that a party that was killed goes on from its
records: it trains at most one sampling period again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from comity import faults
from comity.blobs.session_blobs import Expectation, SessionBlobs
from comity.contract import Contract, Json, Membership
from comity.errors import MalformedMessage, RoundOutOfOrder
from comity.ledger.ledger import ROUND, Units
from comity.privacy.leak_guard import Verdict
from comity.protocols.assisted_learning.algorithm import JointLoss, Loss
from comity.protocols.assisted_learning.choices import TrajectoryEncoding
from comity.protocols.assisted_learning.choosing import CheckpointChooser
from comity.protocols.assisted_learning.loss_table import WORST, LossTable
from comity.protocols.assisted_learning.making import TrajectoryMaker
from comity.protocols.assisted_learning.messages import Checkpoint, loss_from_json, loss_to_json
from comity.protocols.assisted_learning.own_losses import AssistedTask, OwnLosses
from comity.protocols.assisted_learning.schedule import Schedule
from comity.session.verdicts import Verdicts
from comity.store.journal import Journal
from comity.store.store import Record


class Party:
    """One side of a session.

    Args:
        task: This party's model and data.
        blobs: The session's blobs at this party.
        journal: The session's journal at this party.
        contract: What was agreed.
        own: This party's part in it.
        peers: The parts of those with whom it has to do: of the learner, or of every provider.
        works_ahead: Whether it trains from a model that may be picked while it has nothing else to do.
        verdicts: Where it is recorded what was found of what it trains; None where it is not needed.

    Attributes:
        making: Its own trajectory.
        choosing: Its pick.
        losses: Its losses on models, sample by sample.
        assessed: What it said, in the active round, of models that it was asked about.
    """

    def __init__(  # noqa: PLR0913
        self,
        task: AssistedTask,
        blobs: SessionBlobs,
        journal: Journal,
        contract: Contract,
        own: Membership,
        *peers: Membership,
        works_ahead: bool = False,
        verdicts: Verdicts | None = None,
    ) -> None:
        self.task = task
        self.blobs = blobs
        self.journal = journal
        self.own = own
        self.peers = peers
        self.contract = contract
        self.schedule = Schedule(contract, own, peers)
        self.round = 1
        self.assessed: dict[bytes, Loss] = {}
        self.losses = OwnLosses(task, blobs)
        self.making = TrajectoryMaker(task, blobs, journal, self.schedule, self.losses, verdicts)
        self.choosing = CheckpointChooser(self.schedule, self.losses, task.judged, contract.seed, self._of_others)
        self._trajectories: dict[str, list[Checkpoint]] = {}
        parties = [own.party, *(each.party for each in peers)]
        self._loss_table = LossTable(parties, self.schedule.terms.objective)
        self._works_ahead = works_ahead

    @property
    def encoding(self) -> TrajectoryEncoding:
        """How checkpoints cross, as the terms have it."""
        return self.schedule.terms.trajectory_encoding

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
        units = Units(ROUND, rounds[0], rounds[-1] - rounds[0] + 1)
        return Expectation("checkpoint", units, layout.size, count, layout.verify, self.encoding == "delta")

    def begin_round(self) -> None:
        """Forgets the trajectories of the round before, and what was said of them; what was picked stays."""
        self.round += 1
        self.assessed = {}
        self._trajectories = {}
        self.making.begin_round()
        self.choosing.begin_round()
        if self.choosing.pick is not None:
            self._loss_table.keep(self.choosing.pick.digest)
        self.blobs.unsettle()

    def replay(self, record: Record) -> None:
        """Does again, without the work, what a record says was done."""
        fields: Any = record.fields
        match record.kind:
            case "trained":
                checkpoint = Checkpoint.from_json(fields)
                self.making.keep(checkpoint, _digest(fields["optimizer"]), _verdict(fields["verdict"]), record.round)
                self._know(checkpoint, self.own.party)
            case "received":
                self._keep_received(Checkpoint.from_json(fields), fields["party"])
            case "assessed":
                self._keep_assessed(bytes.fromhex(fields["digest"]), fields["party"], _own_loss(fields))
            case "picked":
                self._keep_pick(fields["pick"], fields["total"], _digest(fields["losses"]))

    def train(self, start: bytes, round: int) -> Iterator[Checkpoint]:
        """Trains from a model, and takes note of this party's loss on each checkpoint; see `TrajectoryMaker.train`."""
        for checkpoint in self.making.train(start, round):
            self._know(checkpoint, self.own.party)
            yield checkpoint

    def train_ahead(self) -> bool:
        """Trains for a sampling period from the first model that was received, in case that it is picked.

        False where this party does not work ahead, or there is nothing to work on.
        """
        if not self._works_ahead or not self.received:
            return False
        return self.making.train_ahead(self.received[0].digest, self.round)

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
        loss = Loss(min(float(self.losses.of(digest).sum()), WORST), self.task.judged)
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
        return self.choosing.advance(self.received, whole=whole)

    def select(self, round: int) -> Checkpoint:
        """Picks the received checkpoint of least global loss, once all were received.

        Raises:
            NonFiniteValue: No checkpoint has a finite global loss.
        """
        selection = self.choosing.select(self.received)
        losses = self.losses.store(selection.losses)
        fields: dict[str, Json] = {"pick": selection.index, "total": selection.total, "losses": losses.hex()}
        self.journal.append("picked", round, **fields)
        return self._keep_pick(selection.index, selection.total, losses)

    def drop_assessed(self) -> None:
        """Drops the models of which this party has said what it thinks, when nobody will ask again."""
        for digest in self.assessed.keys() - {each.digest for each in self.making.trained}:
            if self.choosing.pick is None or digest != self.choosing.pick.digest:
                self.blobs.drop(digest)

    def retain(self, *more: bytes) -> None:
        """Drops every blob but the pick, its losses, what the next training begins with, and those named."""
        pick = self.choosing.pick
        kept = {self.losses.kept, None if pick is None else pick.digest, self.making.needed, *more}
        self.blobs.keep({digest for digest in kept if digest is not None})

    def _keep_received(self, checkpoint: Checkpoint, party: str) -> None:
        self.trajectory_of(party).append(checkpoint)
        self._know(checkpoint, party)
        # The offer may be repeated after the blob was dropped.
        self.blobs.settle(checkpoint.digest)

    def _keep_assessed(self, digest: bytes, party: str, loss: Loss) -> None:
        self._loss_table.record(digest, party, loss)
        if party == self.own.party:
            self.assessed[digest] = loss

    def _keep_pick(self, index: int, total: float, losses: bytes | None) -> Checkpoint:
        pick = self.received[index]
        self.choosing.keep(pick, total, losses)
        return pick

    def _know(self, checkpoint: Checkpoint, party: str) -> None:
        """Takes note of the loss that came with a checkpoint, where it is one party's."""
        if isinstance(checkpoint.loss, Loss):
            self._loss_table.record(checkpoint.digest, party, checkpoint.loss)

    def _of_others(self, checkpoint: Checkpoint) -> Loss | JointLoss | None:
        """The loss of all other parties on a checkpoint that was received; None where not all have said theirs."""
        if self._provides:
            return checkpoint.loss
        own = self.own.party
        return None if self.missing(checkpoint.digest, own) else self._loss_table.of_others(checkpoint.digest, own)

    @property
    def _provides(self) -> bool:
        return self.own.role == "provider"


def _own_loss(fields: Mapping[str, Any]) -> Loss:
    loss = loss_from_json(fields)
    if not isinstance(loss, Loss):
        raise MalformedMessage("a record cannot be read", expected="one party's loss", received=loss)
    return loss


def _verdict(fields: Mapping[str, Any] | None) -> Verdict | None:
    return None if fields is None else Verdict.from_json(fields)


def _digest(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)
