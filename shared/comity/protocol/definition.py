"""What a protocol says of itself before any of its code is needed: loading it imports neither torch, grpc nor protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from comity.contract import Contract, EgressKind, Json, Terms
from comity.protocol.extensions import Extensions
from comity.protocol.presentation import Presentation
from comity.protocol.topology import Topology
from comity.session.events import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from comity.protocol.implementation import Implementation


@dataclass(frozen=True)
class ProtocolDefinition:
    """A protocol, as the entry-point group `comity.protocols` names it.

    Attributes:
        name: Registered name.
        version: Version of its messages and rules; both sides must have the same.
        initiator: Role of the party that asks.
        acceptor: Role of the party that helps.
        topology: Which of them talk to which.
        egress: Kinds that cross in it.
        trains: Roles that train on data of their own.
        terms: Its part of a contract.
        presentation: What people look at.
        implementation: `package.module:NAME` of what needs torch, grpc and protobuf.
        models: What it calls the models of a contract.
        tasks: Kinds of task that it is for; empty for all.
        unit: What a charge counts.
        extensions: What it adds to a node.
    """

    name: str
    version: int
    initiator: str
    acceptor: str
    topology: Topology
    egress: tuple[EgressKind, ...]
    trains: frozenset[str]
    terms: type[Terms]
    presentation: Presentation
    implementation: str
    models: tuple[str, ...] = ("model",)
    tasks: tuple[str, ...] = ()
    unit: str = "round"
    extensions: Extensions = field(default_factory=Extensions)

    @property
    def roles(self) -> tuple[str, str]:
        """Both roles, the initiator's first."""
        return self.initiator, self.acceptor

    @property
    def center(self) -> str:
        """The role that one party alone has: it drafts the contract, and what people look at is what it sees."""
        return self.topology.center(self.initiator, self.acceptor)

    def load(self) -> Implementation:
        """What needs torch, grpc and protobuf."""
        found: Implementation = resolve_name(self.implementation)
        return found

    def terms_message(self) -> Message:
        """An empty message of the terms."""
        return self.load().service.terms()

    def started(self, contract: Contract, role: str, peers: Sequence[str]) -> Event:
        """See `Presentation.started`."""
        return self.presentation.started(contract, role, peers)

    def finished(self, contract: Contract, result: Mapping[str, Json]) -> Event:
        """See `Presentation.finished`."""
        return self.presentation.finished(contract, result)
