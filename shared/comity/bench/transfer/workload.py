"""What is moved, known alike to both processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from comity.contract import Contract, ModelSpec, Terms
from comity.session.gate import EgressGate
from comity.session.policy import Policy
from comity.store.memory_store import MemoryStore
from comity.tasks import build_model
from comity.tasks.classification import classification
from comity.tensors import Layout, State

ROUND = 1
SENDER, RECEIVER = "sender", "receiver"
"""The parties: the first opens connections, the second listens."""


@dataclass(frozen=True)
class Workload:
    """A checkpoint and the contract under which it crosses.

    Attributes:
        state: A live state dict, changed before each transfer so that no transfer is saved.
        layout: Its layout.
        contract: The contract.
    """

    state: State
    layout: Layout
    contract: Contract

    @classmethod
    def of(cls, model: str) -> Self:
        """The workload of a model's name; small models take small inputs."""
        side = 32 if model == "resnet18-cifar" else 8
        task = classification((3, side, side), 10)
        state = build_model(ModelSpec(name=model), task, seed=0).state_dict()
        layout = Layout.of(state)
        contract = Contract(
            protocol="bench",
            version=1,
            session="bench",
            seed=0,
            rounds=ROUND,
            models={"model": ModelSpec(name=model, signature=layout.signature)},
            task=task,
            initiator=SENDER,
            acceptors=(RECEIVER,),
            egress=("checkpoint",),
            terms=Terms(),
        )
        return cls(state, layout, contract)

    def train(self) -> None:
        """Changes one tensor, as a training step would change all."""
        *_, last = self.state.values()
        last.add_(1)

    def gate(self, peer: str) -> EgressGate:
        """What lets checkpoints out to a peer."""
        return EgressGate(self.contract, Policy(), MemoryStore(), peer)
