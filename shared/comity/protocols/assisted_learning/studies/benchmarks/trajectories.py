"""Trajectories as a session makes them: a session in one process, with somebody who looks at what crosses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from comity.blobs.session_blobs import SessionBlobs
from comity.ledger.receipts import SignedStatement
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.protocol.roles import run
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.calls import ProviderPort
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Assistance, Checkpoint, idle
from comity.protocols.assisted_learning.own_losses import AssistedTask
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.session.events import ignore
from comity.simulation.in_process import parties
from comity.tensors import State
from comity.transport.bindings.in_process import InProcessChannel


@dataclass(frozen=True)
class Trajectory:
    """What a party has to choose from.

    Attributes:
        receiver: Role of the party that received it.
        task: That party's model and data.
        blobs: What that party holds.
        terms: The session's terms.
        checkpoints: What it received, in order.
        known: Its per-sample losses under checkpoint 0, where it has evaluated that model before.
    """

    receiver: str
    task: AssistedTask
    blobs: SessionBlobs
    terms: AssistedLearningTerms
    checkpoints: Sequence[Checkpoint]
    known: Float[Tensor, " samples"] | None

    def state(self, index: int) -> State:
        """A checkpoint's tensors."""
        return self.task.layout.view(self.blobs.get(self.checkpoints[index].digest).data)


Examine = Callable[[Trajectory], None]


def replay(script: Script, examine: Examine) -> None:
    """Runs a session of assisted learning, and shows every trajectory to `examine` when it is whole."""
    (initiator,), (acceptor,) = parties(script)
    contract, definition = draft_contract(script, initiator, "bench")
    own, peer = initiator.membership(definition.initiator), acceptor.membership(definition.acceptor)
    context = initiator.peer_context(initiator.session_context(contract, own, ignore), peer)
    other = acceptor.peer_context(acceptor.session_context(contract, peer, ignore), own)
    learner, provider = (
        Party(each.task, each.blobs, each.journal, contract, each.own, each.peer) for each in (context, other)
    )
    port = ProviderPort(context, InProcessChannel(other, Provider(provider, other.receipt_book, ignore)))
    terms = AssistedLearningTerms.model_validate(contract.terms.model_dump())
    onlooker = _Onlooker(port, {"learner": learner, "provider": provider}, terms, examine)
    run(Learner(learner, [(onlooker, context.receipt_book)], ignore))


class _Onlooker:
    """Implements `Assistance`; passes everything on, and shows each trajectory that is whole.

    Args:
        port: The provider.
        parties: Both sides, by role.
        terms: The session's terms.
        examine: Is shown the trajectories.
    """

    def __init__(
        self, port: Assistance, parties: Mapping[str, Party], terms: AssistedLearningTerms, examine: Examine
    ) -> None:
        self._port = port
        self._parties = parties
        self._terms = terms
        self._examine = examine
        self._offered: list[Checkpoint] = []

    def assess(self, round: int, digest: bytes) -> Future[Loss]:
        """See `Assistance.assess`."""
        return self._port.assess(round, digest)

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        """See `Assistance.offer`."""
        self._offered.append(checkpoint)
        self._port.offer(round, checkpoint)

    def close(self, round: int, count: int, request: SignedStatement) -> SignedStatement:
        """See `Assistance.close`."""
        # From the second round on, the learner begins with a model of the provider's own.
        self._show("provider", self._offered, is_known=round > 1)
        self._offered = []
        return self._port.close(round, count, request)

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:
        """See `Assistance.results`."""
        received = []
        for checkpoint in self._port.results(round, skip, meanwhile):
            received.append(checkpoint)
            yield checkpoint
        self._show("learner", received, is_known=True)

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Assistance.acknowledge`."""
        self._port.acknowledge(round, acknowledgement)

    def _show(self, receiver: str, checkpoints: Sequence[Checkpoint], *, is_known: bool) -> None:
        party = self._parties[receiver]
        shown = Trajectory(receiver, party.task, party.blobs, self._terms, checkpoints, None)
        self._examine(replace(shown, known=party.task.losses(shown.state(0))) if is_known else shown)
