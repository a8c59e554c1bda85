"""The learner: trains, offers its trajectory round by round, and keeps the best of what comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from comity.errors import MalformedMessage
from comity.protocols.assisted_learning.algorithm import argmin
from comity.protocols.assisted_learning.messages import Assistance, trajectory_digest
from comity.protocols.assisted_learning.party import Party
from comity.session.events import Event, Json, Observer
from comity.session.notary import Notary
from comity.session.outcome import Outcome

_STALLED = "the phases are too short: no checkpoint of either party was better than the model that the round began with"


@dataclass(frozen=True, slots=True)
class Round:
    """What a round came to.

    Attributes:
        provider_pick: Index of the learner's checkpoint that the provider started from.
        learner_pick: Index of the provider's checkpoint that became θ^r.
        global_loss: f(θ^r; D(L,P)).
        global_return: J(θ^r), the mean discounted return of both parties' episodes; None for other tasks.
        test_accuracy: Of θ^r on the learner's test samples, 0 to 1, where it has any.
        test_return: Mean return of θ^r in the first of the learner's tests, where it has games.
        test_returns: The same in each of them, by name.
        screening_work: Forward passes of the learner's evaluation, as a share of a full one.
        seconds: Wall time.
        model: Digest of θ^r, hexadecimal.
    """

    provider_pick: int
    learner_pick: int
    global_loss: float
    global_return: float | None
    test_accuracy: float | None
    test_return: float | None
    test_returns: Mapping[str, float]
    screening_work: float
    seconds: float
    model: str


class Learner:
    """The asking role. Its state follows from its journal: records `trained`, `closed`, `received`, `picked`, `finished`.

    Args:
        party: This party's side of the session.
        provider: The provider, in process or over the network.
        notary: Signs and checks statements.
        observe: Is told what happens.
    """

    def __init__(self, party: Party, provider: Assistance, notary: Notary, observe: Observer) -> None:
        self._party = party
        self._provider = provider
        self._notary = notary
        self._observe = observe
        self._rounds: list[Round] = []
        self._closed = self._picked = False
        self._initial = party.task.layout.pack(party.task.initial_state)
        for record in party.journal.records():
            party.replay(record)
            fields: Any = record.fields
            match record.kind:
                case "closed":
                    self._closed = True
                case "picked":
                    self._picked = True
                case "finished":
                    self._finish(Round(**fields))

    def work(self) -> Iterator[None]:
        """Runs what is left of the rounds that were bought."""
        self._party.blobs.add(self._initial)
        while len(self._rounds) < self._party.rounds:
            self._run_round(len(self._rounds) + 1)
            yield

    def outcome(self) -> Outcome:
        """The best θ^r with the session's metrics."""
        best = self._best()
        digest = bytes.fromhex(best.model)
        model, metrics = self._party.blobs.get(digest), self._metrics(best)
        kept = self._party.own_model(digest)
        if kept is None:
            return Outcome((model,), metrics)
        own, accuracy = kept
        return Outcome((model,), metrics | {"own_model": accuracy}, own)

    def _run_round(self, number: int) -> None:
        began = time.monotonic()
        party = self._party
        if not self._closed:
            self._offer(number)
        self._receive(number)
        if not self._picked:
            party.select(number)
        picked = party.pick
        if picked is None:
            raise MalformedMessage(
                f"the provider sent no trajectory in round {number}",
                expected="checkpoint 0",
                received="nothing",
                action="ask the provider's operator what happened",
            )
        returns = party.test_returns(picked.digest)
        finished = Round(
            provider_pick=self._provider_pick(number),
            learner_pick=picked.index,
            global_loss=party.pick_total,
            global_return=party.mean_return(party.pick_total),
            test_accuracy=party.test_accuracy(picked.digest),
            test_return=next(iter(returns.values()), None),
            test_returns=returns,
            screening_work=party.work,
            seconds=time.monotonic() - began,
            model=picked.digest.hex(),
        )
        fields = asdict(finished)
        party.journal.append("finished", number, **fields)
        self._finish(finished)
        party.retain(bytes.fromhex(self._best().model))
        self._observe(Event("round-finished", number, fields))
        if finished.provider_pick == finished.learner_pick == 0:
            self._observe(Event("stalled", number, {"what": _STALLED, "action": "raise iterations in session.terms"}))

    def _offer(self, number: int) -> None:
        """Trains, offering each checkpoint as it is made, and closes the round."""
        party = self._party
        # What was made before a restart is offered again: the provider knows what it has.
        for checkpoint in party.trained:
            self._provider.offer(number, checkpoint)
        start = bytes.fromhex(self._rounds[-1].model) if self._rounds else self._initial.digest
        for checkpoint in party.train(start, number):
            self._provider.offer(number, checkpoint)
            fields: dict[str, Json] = {"index": checkpoint.index, "of": party.checkpoints, "loss": checkpoint.loss.sum}
            self._observe(Event("checkpoint-offered", number, fields))
        subject = trajectory_digest(number, party.trained)
        request = self._notary.sign("request", number, subject)
        receipt = self._provider.close(number, len(party.trained), request)
        with party.journal.transaction():
            self._notary.accept(receipt, "receipt", number, subject)
            party.journal.append("closed", number)
        self._closed = True

    def _receive(self, number: int) -> None:
        """Takes the provider's trajectory, evaluating while it waits, and acknowledges it."""
        party = self._party
        for checkpoint in self._provider.results(number, len(party.received), meanwhile=party.advance):
            party.receive(checkpoint, number)
            if checkpoint.index == 0:
                self._provider_pick(number)
            fields: dict[str, Json] = {
                "index": checkpoint.index,
                "of": party.peer_checkpoints,
                "loss": checkpoint.loss.sum,
            }
            self._observe(Event("checkpoint-received", number, fields))
        if len(party.received) != party.peer_checkpoints:
            raise MalformedMessage(
                f"the provider's trajectory in round {number} is not whole",
                expected=f"{party.peer_checkpoints} checkpoints",
                received=len(party.received),
                action="ask the provider's operator what happened",
            )
        subject = trajectory_digest(number, party.received)
        self._provider.acknowledge(number, self._notary.sign("acknowledgement", number, subject))

    def _provider_pick(self, number: int) -> int:
        """Index of the learner's checkpoint that the provider started from.

        Raises:
            MalformedMessage: It started from another model.
        """
        initial = self._party.received[0].digest
        offered = [checkpoint.digest for checkpoint in self._party.trained]
        if initial not in offered:
            raise MalformedMessage(
                f"the provider did not start round {number} from an offered checkpoint",
                expected="the digest of one of them",
                received=initial.hex(),
                action="ask the provider's operator what happened",
            )
        return offered.index(initial)

    def _finish(self, finished: Round) -> None:
        self._rounds.append(finished)
        self._closed = self._picked = False
        self._party.begin_round()

    def _best(self) -> Round:
        # By Proposition 1 the losses never rise, so this is the first that has the least.
        return self._rounds[argmin([each.global_loss for each in self._rounds])]

    def _metrics(self, best: Round) -> dict[str, Json]:
        rounds = self._rounds
        if best.global_return is None:
            tested: dict[str, Json] = {
                "assisted": best.test_accuracy,
                "assisted_by_round": [each.test_accuracy for each in rounds],
            }
        else:
            tested = {
                "assisted": best.test_return,
                "assisted_by_round": [each.test_return for each in rounds],
                "test_returns": best.test_returns,
                "global_return_by_round": [each.global_return for each in rounds],
            }
        guarantees = self._party.guarantees()
        if guarantees is not None:
            tested["privacy"] = guarantees
        return {
            **tested,
            "global_loss_by_round": [each.global_loss for each in rounds],
            "provider_picks": [each.provider_pick for each in rounds],
            "learner_picks": [each.learner_pick for each in rounds],
        }
