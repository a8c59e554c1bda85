"""The provider: evaluates the learner's trajectory, picks its best model, trains on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from enum import Enum, auto

from comity.contract import Json
from comity.errors import ComityError, ConflictingOffer, RoundOutOfOrder
from comity.ledger.ledger import in_round
from comity.ledger.receipts import SignedStatement
from comity.protocols.assisted_learning.algorithm import JointLoss, Loss
from comity.protocols.assisted_learning.choices import TrajectoryEncoding
from comity.protocols.assisted_learning.messages import Checkpoint, assessment_digest, idle, trajectory_digest
from comity.protocols.assisted_learning.party import Party
from comity.session.events import Event, Observer
from comity.session.receipt_book import ReceiptBook
from comity.session.replayable_stream import ReplayableStream
from comity.store.store import Record


class ProviderPhase(Enum):
    """What a provider is doing."""

    OFFERING = auto()
    """Checkpoints to choose from, or to say something of, are coming; they are evaluated meanwhile."""
    SELECTING = auto()
    """The offer is closed; what is left of the evaluation is done."""
    TRAINING = auto()
    """The provider's own trajectory is being made."""
    FINISHED = auto()
    """The trajectory is complete; the next round, if there is one, begins with its first offer or question."""
    FAILED = auto()
    """The session cannot go on."""


class Provider:
    """The helping role; implements `Assistance` in process.

    It is single-threaded and works in small units: its driver calls `advance` while nothing else is asked of it.
    Its state follows from its journal: records `assessed`, `received`, `closed`, `picked`, `trained`,
    `finished`. In a round in which it does not train there are only those of `assessed`, `closed` and `finished`.

    Args:
        party: This party's side of the session.
        receipt_book: Signs and checks statements.
        observe: Is told what happens.
    """

    def __init__(self, party: Party, receipt_book: ReceiptBook, observe: Observer) -> None:
        self._party = party
        self._receipt_book = receipt_book
        self._observe = observe
        self._began = time.monotonic()
        self._phase = ProviderPhase.OFFERING
        self._training: Iterator[Checkpoint] | None = None
        self._trajectory: ReplayableStream[Checkpoint] = ReplayableStream()
        self._failure: ComityError | None = None
        for record in party.journal.records():
            self._replay(record)
        self._expect_uploads()

    @property
    def round(self) -> int:
        """The active round, from 1."""
        return self._party.round

    @property
    def encoding(self) -> TrajectoryEncoding:
        """How checkpoints cross, as the terms have it."""
        return self._party.encoding

    @property
    def phase(self) -> ProviderPhase:
        """What the provider is doing."""
        return self._phase

    def assess(self, round: int, digest: bytes) -> Future[Loss]:
        """See `Assistance.assess`; the answer is there at once."""
        self._enter(round, "question")
        party = self._party
        answer: Future[Loss] = Future()
        known = party.assessed.get(digest)
        if known is None:
            most = party.schedule.most_assessed(round)
            is_open = self._phase is ProviderPhase.OFFERING or (
                self._phase is ProviderPhase.FINISHED and party.schedule.trains(round)
            )
            if not is_open or len(party.assessed) >= most:
                raise RoundOutOfOrder(
                    f"no more questions are answered in round {round}",
                    expected=f"at most {most}, before or after this party's own training",
                    received=f"one more in phase {self._phase.name.lower()}",
                    action="ask for models of trajectories that this party neither makes nor chooses from",
                )
            known = party.assess(digest, round)
        answer.set_result(known)
        return answer

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        """See `Assistance.offer`."""
        self._enter(round, "offer")
        offered = self._party.received
        if checkpoint.index < len(offered):
            known = offered[checkpoint.index]
            if known != checkpoint:
                raise ConflictingOffer(
                    f"checkpoint {checkpoint.index} of round {round} was offered already",
                    expected=_described(known),
                    received=_described(checkpoint),
                    action="an offered checkpoint cannot change",
                )
            return
        if self._phase is not ProviderPhase.OFFERING or not self._party.schedule.trains(round):
            wanted = (
                "none, the offer is closed" if self._party.schedule.trains(round) else "questions alone in this round"
            )
            raise RoundOutOfOrder(
                f"the offer in round {round} is out of order",
                expected=wanted,
                received=f"checkpoint {checkpoint.index}",
                action="offer in order, and before the round is closed",
            )
        self._party.receive(checkpoint, round)

    def close(self, round: int, count: int, request: SignedStatement) -> SignedStatement:
        """See `Assistance.close`."""
        self._require_healthy()
        trains = self._party.schedule.trains(round)
        if not trains:
            # There may have been nothing to ask.
            self._enter(round, "end")
        if round != self.round:
            raise RoundOutOfOrder(
                "the round to close is not on",
                expected=f"round {self.round}",
                received=f"round {round}",
                action="go on with the active round",
            )
        offered = self._party.received
        come = len(offered if trains else self._party.assessed)
        if count != come or (trains and count == 0):
            raise RoundOutOfOrder(
                f"round {round} cannot be closed",
                expected=f"{come or 'some'} checkpoints",
                received=count,
                action="offer checkpoints, and close with their number",
            )
        subject = trajectory_digest(round, offered) if trains else assessment_digest(round, self._party.assessed)
        with self._party.journal.transaction():
            self._receipt_book.accept(request, "request", in_round(round), subject)
            receipt = self._receipt_book.sign("receipt", in_round(round), subject)
            if self._phase is ProviderPhase.OFFERING:
                self._replay(self._party.journal.append("closed", round, checkpoints=count))
                self._party.blobs.expect()
                self._observe(Event("offer-closed", round, {"checkpoints": count}))
                if not trains:
                    self._finish()
        return receipt

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:  # noqa: ARG002
        """See `Assistance.results`; does the provider's work as the caller asks for more."""
        trajectory = self.trajectory(round)
        index = skip
        while True:
            while index >= len(trajectory) and not trajectory.closed:
                self.advance()
            if index >= len(trajectory):
                return
            yield trajectory[index]
            index += 1

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Assistance.acknowledge`."""
        self._require_healthy()
        if self._receipt_book.accepted("acknowledgement", in_round(round)) == acknowledgement:
            return
        if round != self.round or self._phase is not ProviderPhase.FINISHED:
            on = f"round {self.round}" if self._phase is ProviderPhase.FINISHED else "none yet"
            raise RoundOutOfOrder(
                "there are no such results",
                expected=on,
                received=f"round {round}",
                action="acknowledge the results of the active round",
            )
        if self._party.schedule.trains(round):
            subject = trajectory_digest(round, self._party.making.trained)
        else:
            subject = assessment_digest(round, self._party.assessed)
        self._receipt_book.accept(acknowledgement, "acknowledgement", in_round(round), subject)
        self._party.drop_assessed()

    def trajectory(self, round: int) -> ReplayableStream[Checkpoint]:
        """The provider's checkpoints of a closed round, to be followed while they are made.

        Raises:
            RoundOutOfOrder: The round was not closed, or another one has begun.
        """
        self._require_healthy()
        if round != self.round or self._phase is ProviderPhase.OFFERING:
            closed = "none" if self._phase is ProviderPhase.OFFERING else self.round
            raise RoundOutOfOrder(
                "there are no results of that round",
                expected=f"closed round: {closed}",
                received=f"round {round}",
                action="close the round first",
            )
        return self._trajectory

    def advance(self) -> bool:
        """Does a small unit of the work at hand; False when there is none until the learner asks for something.

        Raises:
            ComityError: The session cannot go on; those who follow it are told the same.
        """
        try:
            match self._phase:
                case ProviderPhase.OFFERING:
                    return self._party.advance() or self._party.train_ahead()
                case ProviderPhase.SELECTING:
                    return self._party.advance(whole=True) or self._select()
                case ProviderPhase.TRAINING:
                    return self._train()
                case ProviderPhase.FINISHED | ProviderPhase.FAILED:
                    return False
        except ComityError as error:
            self.fail(error)
            raise

    def fail(self, error: ComityError) -> None:
        """Ends the session: those who follow it are told, and every later call is answered with the error."""
        if self._failure is None:
            self._failure = error
            self._phase = ProviderPhase.FAILED
            self._trajectory.close(error)
            self._observe(Event("session-failed", self.round, {"what": str(error), "reason": error.reason()}))

    def _select(self) -> bool:
        picked = self._party.select(self.round)
        self._party.retain()
        self._phase = ProviderPhase.TRAINING
        fields = {
            "pick": picked.index,
            "global_loss": self._party.choosing.pick_total,
            "screening_work": self._party.choosing.work,
        }
        self._observe(Event("picked", self.round, fields))
        return True

    def _train(self) -> bool:
        if self._training is None and self._party.choosing.pick is not None:
            self._training = self._party.train(self._party.choosing.pick.digest, self.round)
        checkpoint = next(self._training, None) if self._training is not None else None
        if checkpoint is not None:
            self._trajectory.append(checkpoint)
            return True
        self._finish()
        return False

    def _finish(self) -> None:
        party = self._party
        picked = party.choosing.pick if party.schedule.trains(self.round) else None
        fields: dict[str, Json] = {
            "provider_pick": picked.index if picked is not None else None,
            "global_loss": party.choosing.pick_total if picked is not None else None,
            "global_return": party.schedule.mean_return(party.choosing.pick_total) if picked is not None else None,
            "checkpoints": len(self._trajectory),
            "assessed": len(party.assessed),
            "rows_held": party.making.rows_held,
            "seconds": time.monotonic() - self._began,
        }
        self._replay(party.journal.append("finished", self.round, **fields))
        self._expect_uploads()
        self._observe(Event("round-finished", self.round, fields))

    def _replay(self, record: Record) -> None:
        """Does again, without the work, what a record says was done."""
        if record.round != self.round:
            self._begin()
        self._party.replay(record)
        match record.kind:
            case "closed":
                self._phase = ProviderPhase.SELECTING
            case "picked":
                self._phase = ProviderPhase.TRAINING
            case "trained":
                self._trajectory.append(self._party.making.trained[-1])
            case "finished":
                self._phase = ProviderPhase.FINISHED
                self._training = None
                self._trajectory.close()

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._phase = ProviderPhase.OFFERING
        self._trajectory = ReplayableStream()
        self._party.begin_round()

    def _enter(self, round: int, what: str) -> None:
        """Begins the next round, where it is time for it.

        Raises:
            RoundOutOfOrder: Another round is on.
        """
        self._require_healthy()
        if self._phase is ProviderPhase.FINISHED and round == self.round + 1 <= self._party.schedule.rounds:
            self._begin()
        if round != self.round:
            raise RoundOutOfOrder(
                f"the {what} is not of the active round",
                expected=f"round {self.round}",
                received=f"round {round}",
                action="go on with the active round",
            )

    def _expect_uploads(self) -> None:
        schedule, on, after = self._party.schedule, self.round, self.round + 1
        most: dict[int, int] = {}
        if self._phase is ProviderPhase.OFFERING:
            most[on] = schedule.most_uploaded(on)
        elif self._phase is ProviderPhase.FINISHED:
            # Of this round, models of the trajectories that follow this party's own; of the next, they may come before
            # its first offer or question, with which it begins.
            if schedule.is_shared and schedule.trains(on):
                most[on] = schedule.most_assessed(on)
            if after <= self._party.schedule.rounds:
                most[after] = schedule.most_uploaded(after)
        self._party.blobs.expect(*[self._party.expectation([*most], sum(most.values()))] if most else [])

    def _require_healthy(self) -> None:
        if self._failure is not None:
            raise self._failure


def _described(checkpoint: Checkpoint) -> str:
    loss = checkpoint.loss
    said = f"joint loss {loss.numbers}" if isinstance(loss, JointLoss) else f"loss {loss.sum} over {loss.count}"
    return f"{checkpoint.digest.hex()} of iteration {checkpoint.iteration} with {said}"
