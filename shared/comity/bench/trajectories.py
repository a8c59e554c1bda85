"""Trajectories as a session makes them: a session in one process, with somebody who looks at what crosses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from comity.node.asking import draft_contract
from comity.node.script import Script
from comity.protocols.assisted_learning.in_process import InProcessProvider
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import (
    Assistance,
    AssistedLearningTerms,
    Checkpoint,
    Receipt,
    idle,
)
from comity.protocols.assisted_learning.party import LocalTask, Party
from comity.protocols.assisted_learning.provider import Provider
from comity.session.blobs import SessionBlobs
from comity.session.events import nobody
from comity.simulation.in_process import parties
from comity.transport.protocol import Seat


@dataclass(frozen=True)
class Trajectory:
    """What a party has to choose from.

    Attributes:
        receiver: Role of the party that received it.
        task: That party's model and data.
        terms: The session's terms.
        checkpoints: What it received, in order.
        known: Its per-sample losses under checkpoint 0, where it has evaluated that model before.
    """

    receiver: str
    task: LocalTask
    terms: AssistedLearningTerms
    checkpoints: Sequence[Checkpoint]
    known: Float[Tensor, " samples"] | None


Examine = Callable[[Trajectory], None]


def replay(script: Script, examine: Examine) -> None:
    """Runs a session of assisted learning, and shows every trajectory to `examine` when it is whole."""
    asker, helper = parties(script)
    contract, definition = draft_contract(script, asker, "bench")
    own, peer = asker.membership(definition.asker), helper.membership(definition.helper)
    seat = Seat(contract, own, peer, asker.task(contract), SessionBlobs(), asker.gate(contract, helper.name), nobody)
    other = Seat(contract, peer, own, helper.task(contract), SessionBlobs(), helper.gate(contract, asker.name), nobody)
    learner, provider = (Party(each.task, each.blobs, contract, each.own, each.peer) for each in (seat, other))
    port = InProcessProvider(seat, other, Provider(provider, nobody))
    Learner(learner, _Onlooker(port, learner, provider, examine), nobody).run()


class _Onlooker:
    """Implements `Assistance`; passes everything on, and shows each trajectory that is whole.

    Args:
        port: The provider.
        learner: The learner's side.
        provider: The provider's side.
        examine: Is shown the trajectories.
    """

    def __init__(self, port: Assistance, learner: Party, provider: Party, examine: Examine) -> None:
        self._port = port
        self._learner = learner
        self._provider = provider
        self._examine = examine
        self._offered: list[Checkpoint] = []

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        """See `Assistance.offer`."""
        self._offered.append(checkpoint)
        self._port.offer(round, checkpoint)

    def close(self, round: int, count: int) -> Receipt:
        """See `Assistance.close`."""
        # From the second round on, the learner begins with a model of the provider's own.
        self._show("provider", self._provider, self._offered, is_known=round > 1)
        self._offered = []
        return self._port.close(round, count)

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:
        """See `Assistance.results`."""
        received = []
        for checkpoint in self._port.results(round, skip, meanwhile):
            received.append(checkpoint)
            yield checkpoint
        self._show("learner", self._learner, received, is_known=True)

    def _show(self, receiver: str, party: Party, checkpoints: Sequence[Checkpoint], *, is_known: bool) -> None:
        task = party.task
        known = task.losses(task.layout.view(checkpoints[0].blob.data)) if is_known else None
        self._examine(Trajectory(receiver, task, party.terms, checkpoints, known))
