"""What a protocol must offer so that nodes can run it: five slices, and those of others, are joined in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from comity.contract import Contract, EgressKind, Json, Membership, Terms
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Column, Event, Statement, Summary, View
from comity.session.outcome import Outcome
from comity.session.receipt_book import ReceiptBook
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.session.worker import Steppable
from comity.tensors import Layout
from comity.transport.bundles import Bundle, ReceivedBundle
from comity.transport.peer_connection import PeerConnection


class LocalTask(Protocol):
    """What negotiation needs to know of a party's model and data."""

    layout: Layout

    @property
    def samples(self) -> int:
        """Number of training samples."""


class Initiator(Protocol):
    """The role of the party that asks."""

    def work(self) -> Iterator[None]:
        """Does what is left of the session; yields where it is another initiator's turn, if there are any in this process."""

    def outcome(self) -> Outcome:
        """What the session came to, when the work is done."""


def run(*roles: Initiator) -> list[Outcome]:
    """Runs asking roles to their end, in turns."""
    for _ in zip_longest(*(role.work() for role in roles)):
        pass
    return [role.outcome() for role in roles]


@dataclass(frozen=True)
class OfflineBinding:
    """How a protocol's rounds cross where somebody carries them.

    Attributes:
        ask: Builds the asking role, from its context and the bundle that answers the active round, if it is here. Its
            work ends with `AnswerDue` where it is not.
        take: Does at the helping role what a bundle asks; again, without harm.
        answer: Does the helping role's work, and returns what answers; None where nothing was asked yet.
        last: What the asking role has left to say when the session is over, from its statements and its last round.
    """

    ask: Callable[[PeerContext, ReceivedBundle | None], Initiator]
    take: Callable[[AcceptedSession, ReceivedBundle], None]
    answer: Callable[[AcceptedSession], Bundle | None]
    last: Callable[[ReceiptBook, int], Sequence[Message]]


@dataclass(frozen=True)
class ProtocolDefinition:
    """A protocol, as the entry-point group `comity.protocols` names it.

    Attributes:
        name: Registered name.
        version: Version of its messages and rules; both sides must have the same.
        initiator: Role of the party that asks.
        acceptor: Role of the party that helps.
        egress: Kinds that cross in it.
        terms: Its part of a contract.
        terms_message: The protobuf message of the terms.
        trains: Roles that train on data of their own.
        offline: How its rounds cross in bundles; None where they cannot.
        merge: Makes one session's metrics of the acceptor's and, by party, the initiators'; for protocols that many join.
        steps: Local steps that a party makes in a whole session, from the contract, its membership and its peers'; None
            where the protocol does not train privately.
        several: Whether one session may have several acceptors.
        many: Whether many may join one session, each asking for itself; the helping role then has `admit` and `leave`.
        help: Builds the helping role, from its place and the contexts opposite those whom it helps so far.
        ask: Builds the asking role over the network, from its context opposite each acceptor and the line to it.
        ask_in_process: Builds the asking role against helping roles in the same process, whose messages go through the
            wire's encode and decode; takes for each acceptor the initiator's context, the acceptor's context and the acceptor's role.
        serve: Registers the protocol's services with a server.
        services: Full names of these services.
        columns: For each role, the fields of its `round-finished` events that people look at.
        summary: The metrics of a result that people compare.
        statement: The metrics of a result that say what each round came to for whom, where there are any.
        views: What people look at instead, for other kinds of task than the usual one.
        adapt: Makes of a view the one of a contract; None where it does not depend on it.
        blobs_held: Most blobs of the model's size that a party keeps at a time, from the contract and both memberships.
    """

    name: str
    version: int
    initiator: str
    acceptor: str
    egress: tuple[EgressKind, ...]
    terms: type[Terms]
    terms_message: Callable[[], Message]
    trains: frozenset[str]
    help: Callable[[SessionContext, Sequence[PeerContext]], Steppable]
    ask: Callable[[Sequence[tuple[PeerContext, PeerConnection]]], Initiator]
    ask_in_process: Callable[[Sequence[tuple[PeerContext, PeerContext, Any]]], Initiator]
    serve: Callable[[grpc.Server, SessionRegistry], None]
    services: tuple[str, ...]
    columns: Mapping[str, tuple[Column, ...]]
    summary: Summary
    blobs_held: Callable[[Contract, Membership, Membership], int]
    views: Mapping[str, View] = field(default_factory=dict)
    adapt: Callable[[Contract, View], View] | None = None
    steps: Callable[[Contract, Membership, Sequence[Membership]], int] | None = None
    several: bool = False
    many: bool = False
    offline: OfflineBinding | None = None
    statement: Statement | None = None
    merge: Callable[[Mapping[str, Any], Mapping[str, Mapping[str, Any]]], dict[str, Json]] | None = None

    @property
    def roles(self) -> tuple[str, str]:
        """Both roles, the asking one first."""
        return self.initiator, self.acceptor

    def view(self, contract: Contract) -> View:
        """What people look at in a session."""
        view = self.views.get(contract.task.kind, View(self.columns, self.summary))
        return view if self.adapt is None else self.adapt(contract, view)

    def started(self, contract: Contract, role: str, peers: Sequence[str]) -> Event:
        """The event with which a session begins, for who looks on: it says what to look at."""
        columns: list[Json] = [asdict(each) for each in self.view(contract).columns[role]]
        fields: dict[str, Json] = {"protocol": self.name, "role": role, "peers": [*peers], "rounds": contract.rounds}
        return Event("session-started", 0, fields | {"columns": columns})

    def finished(self, contract: Contract, result: Mapping[str, Json]) -> Event:
        """The event with which a session ends well: the result, and which of its metrics people compare."""
        return Event("session-finished", 0, {"result": result, "summary": asdict(self.view(contract).summary)})


Protocols = Mapping[str, ProtocolDefinition]
