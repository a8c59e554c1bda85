"""The learner: trains, offers its trajectory round by round, and keeps the best of what comes back."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from comity.errors import MalformedMessage
from comity.protocols.assisted_learning.algorithm import argmin
from comity.protocols.assisted_learning.messages import Assistance, Checkpoint, offer_digest
from comity.protocols.assisted_learning.party import Party
from comity.session.events import Event, Json, Observer
from comity.session.outcome import Outcome
from comity.tensors import Blob

_ASK = "ask the provider's operator what happened"


@dataclass(frozen=True, slots=True)
class Round:
    """What a round came to.

    Attributes:
        provider_pick: Index of the learner's checkpoint that the provider started from.
        learner_pick: Index of the provider's checkpoint that became θ^r.
        global_loss: f(θ^r; D(L,P)).
        test_accuracy: Of θ^r on the learner's test samples, 0 to 1, where it has any.
        screening_work: Forward passes of the learner's evaluation, as a share of a full one.
        seconds: Wall time.
    """

    provider_pick: int
    learner_pick: int
    global_loss: float
    test_accuracy: float | None
    screening_work: float
    seconds: float


class Learner:
    """The asking role.

    Args:
        party: This party's side of the session.
        provider: The provider, in process or over the network.
        observe: Is told what happens.
    """

    def __init__(self, party: Party, provider: Assistance, observe: Observer) -> None:
        self._party = party
        self._provider = provider
        self._observe = observe
        self._current = party.task.layout.pack(party.task.initial_state)
        self._rounds: list[Round] = []

    def run(self) -> Outcome:
        """Runs all rounds that were bought.

        Returns:
            The best θ^r with the session's metrics.
        """
        best = self._current
        for number in range(1, self._party.rounds + 1):
            self._rounds.append(self._run_round(number))
            # By Proposition 1 the losses never rise, so the best is the first that has the least.
            if argmin([each.global_loss for each in self._rounds]) == number - 1:
                best = self._current
        return Outcome((best,), self._metrics(best))

    def _run_round(self, number: int) -> Round:
        began = time.monotonic()
        offered = self._offer(number)
        initial = self._receive(number, offered)
        picked, selection = self._party.select()
        self._current = picked.blob
        self._party.blobs.keep({picked.blob.digest})
        finished = Round(
            provider_pick=offered.index(initial.blob.digest),
            learner_pick=picked.index,
            global_loss=selection.total,
            test_accuracy=self._test_accuracy(picked.blob),
            screening_work=selection.work,
            seconds=time.monotonic() - began,
        )
        self._observe(Event("round-finished", number, asdict(finished)))
        return finished

    def _offer(self, number: int) -> list[bytes]:
        """Trains, offering each checkpoint as it is made; returns their digests in order."""
        offered = []
        for checkpoint in self._party.train(self._current, number):
            self._provider.offer(number, checkpoint)
            offered.append(checkpoint)
            fields: dict[str, Json] = {
                "index": checkpoint.index,
                "of": self._party.checkpoints,
                "loss": checkpoint.loss.sum,
            }
            self._observe(Event("checkpoint-offered", number, fields))
        receipt = self._provider.close(number, len(offered))
        digest = offer_digest(number, offered)
        if receipt.digest != digest:
            raise MalformedMessage(
                f"the receipt of round {number} is for another offer",
                expected=digest.hex(),
                received=receipt.digest.hex(),
                action=_ASK,
            )
        return [checkpoint.blob.digest for checkpoint in offered]

    def _receive(self, number: int, offered: list[bytes]) -> Checkpoint:
        """Takes the provider's trajectory, evaluating while it waits; returns the checkpoint that it began with."""
        initial: Checkpoint | None = None
        count = 0
        for checkpoint in self._provider.results(number, meanwhile=self._party.advance):
            if initial is None:
                initial = checkpoint
                if initial.blob.digest not in offered:
                    raise MalformedMessage(
                        f"the provider did not start round {number} from an offered checkpoint",
                        expected="the digest of one of them",
                        received=initial.blob.hex,
                        action=_ASK,
                    )
            self._party.receive(checkpoint)
            count += 1
            fields: dict[str, Json] = {
                "index": checkpoint.index,
                "of": self._party.peer_checkpoints,
                "loss": checkpoint.loss.sum,
            }
            self._observe(Event("checkpoint-received", number, fields))
        if initial is None:
            raise MalformedMessage(
                f"the provider sent no trajectory in round {number}",
                expected="checkpoint 0",
                received="nothing",
                action=_ASK,
            )
        if count != self._party.peer_checkpoints:
            raise MalformedMessage(
                f"the provider's trajectory in round {number} is not whole",
                expected=f"{self._party.peer_checkpoints} checkpoints",
                received=count,
                action=_ASK,
            )
        return initial

    def _test_accuracy(self, blob: Blob) -> float | None:
        return self._party.task.test_accuracy(self._party.task.layout.view(blob.data))

    def _metrics(self, best: Blob) -> dict[str, Json]:
        rounds = self._rounds
        return {
            "assisted": self._test_accuracy(best),
            "assisted_by_round": [each.test_accuracy for each in rounds],
            "global_loss_by_round": [each.global_loss for each in rounds],
            "provider_picks": [each.provider_pick for each in rounds],
            "learner_picks": [each.learner_pick for each in rounds],
        }
