"""The provider: evaluates the learner's trajectory, picks its best model, trains on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, auto

from comity.errors import ComityError, ConflictingOffer, RoundOutOfOrder
from comity.protocols.assisted_learning.messages import Checkpoint, Receipt, idle, offer_digest
from comity.protocols.assisted_learning.party import Party
from comity.session.events import Event, Observer
from comity.session.watched import WatchedLog


class Phase(Enum):
    """What a provider is doing."""

    OFFERING = auto()
    """The learner's checkpoints are coming; they are evaluated meanwhile."""
    SELECTING = auto()
    """The offer is closed; what is left of the evaluation is done."""
    TRAINING = auto()
    """The provider's own trajectory is being made."""
    DONE = auto()
    """All rounds that were bought are over."""


class Provider:
    """The helping role; implements `Assistance` in process.

    It is single-threaded and works in small units: whoever drives it calls `advance` while nothing else is asked of it.

    Args:
        party: This party's side of the session.
        observe: Is told what happens.
    """

    def __init__(self, party: Party, observe: Observer) -> None:
        self._party = party
        self._observe = observe
        self._round = 1
        self._phase = Phase.OFFERING
        self._offered: list[Checkpoint] = []
        self._receipt: Receipt | None = None
        self._training: Iterator[Checkpoint] = iter(())
        self._trajectory: WatchedLog[Checkpoint] = WatchedLog()
        self._failure: ComityError | None = None
        party.blobs.expect(party.expectation(1))

    @property
    def round(self) -> int:
        """The round that is on, from 1."""
        return self._round

    @property
    def phase(self) -> Phase:
        """What the provider is doing."""
        return self._phase

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        """See `Assistance.offer`."""
        self._require_healthy()
        if self._is_next_round(round):
            self._begin(round)
        if round != self._round:
            raise RoundOutOfOrder(
                "the offer is not of the round that is on",
                expected=f"round {self._round}",
                received=f"round {round}",
                action="go on with the round that is on",
            )
        if checkpoint.index < len(self._offered):
            known = self._offered[checkpoint.index]
            if _terms(known) != _terms(checkpoint):
                raise ConflictingOffer(
                    f"checkpoint {checkpoint.index} of round {round} was offered already",
                    expected=_described(known),
                    received=_described(checkpoint),
                    action="an offered checkpoint cannot change",
                )
            return
        if self._phase is not Phase.OFFERING or checkpoint.index > len(self._offered):
            wanted = (
                f"checkpoint {len(self._offered)}" if self._phase is Phase.OFFERING else "none, the offer is closed"
            )
            raise RoundOutOfOrder(
                f"the offer in round {round} is out of order",
                expected=wanted,
                received=f"checkpoint {checkpoint.index}",
                action="offer in order, and before the round is closed",
            )
        self._party.receive(checkpoint)
        self._offered.append(checkpoint)

    def close(self, round: int, count: int) -> Receipt:
        """See `Assistance.close`."""
        self._require_healthy()
        if round != self._round:
            raise RoundOutOfOrder(
                "the round to close is not on",
                expected=f"round {self._round}",
                received=f"round {round}",
                action="go on with the round that is on",
            )
        if count != len(self._offered) or count == 0:
            raise RoundOutOfOrder(
                f"round {round} cannot be closed",
                expected=f"{len(self._offered) or 'some'} checkpoints",
                received=count,
                action="offer checkpoints, and close with their number",
            )
        if self._receipt is None:
            self._receipt = Receipt(round, count, offer_digest(round, self._offered))
            self._phase = Phase.SELECTING
            self._party.blobs.expect(None)
            self._observe(Event("offer-closed", round, {"checkpoints": count}))
        return self._receipt

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

    def trajectory(self, round: int) -> WatchedLog[Checkpoint]:
        """The provider's checkpoints of a closed round, to be followed while they are made.

        Raises:
            RoundOutOfOrder: The round was not closed, or another one has begun.
        """
        self._require_healthy()
        if round != self._round or self._receipt is None:
            closed = self._round if self._receipt is not None else "none"
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
                case Phase.OFFERING:
                    return self._party.advance()
                case Phase.SELECTING:
                    return self._party.advance() or self._select()
                case Phase.TRAINING:
                    return self._train()
                case Phase.DONE:
                    return False
        except ComityError as error:
            self._failure = error
            self._phase = Phase.DONE
            self._trajectory.close(error)
            self._observe(Event("session-failed", self._round, {"error": str(error)}))
            raise

    def _select(self) -> bool:
        picked, selection = self._party.select()
        self._party.blobs.keep({picked.blob.digest})
        self._training = self._party.train(picked.blob, self._round)
        self._phase = Phase.TRAINING
        fields = {"pick": picked.index, "global_loss": selection.total, "screening_work": selection.work}
        self._observe(Event("picked", self._round, fields))
        return True

    def _train(self) -> bool:
        checkpoint = next(self._training, None)
        if checkpoint is not None:
            self._trajectory.append(checkpoint)
            return True
        # The uploads of the next round may come from now on; it begins with its first offer.
        last = self._round == self._party.rounds
        self._phase = Phase.DONE if last else Phase.OFFERING
        self._party.blobs.expect(None if last else self._party.expectation(self._round + 1))
        self._trajectory.close()
        self._observe(Event("round-finished", self._round, {"checkpoints": len(self._trajectory)}))
        return False

    def _is_next_round(self, round: int) -> bool:
        finished = self._receipt is not None and self._phase is Phase.OFFERING
        return finished and round == self._round + 1

    def _begin(self, round: int) -> None:
        self._round = round
        self._offered = []
        self._receipt = None
        self._trajectory = WatchedLog()

    def _require_healthy(self) -> None:
        if self._failure is not None:
            raise self._failure


def _terms(checkpoint: Checkpoint) -> tuple[str, int, float, int]:
    return checkpoint.blob.hex, checkpoint.iteration, checkpoint.loss.sum, checkpoint.loss.count


def _described(checkpoint: Checkpoint) -> str:
    return "{} of iteration {} with loss {} over {}".format(*_terms(checkpoint))
