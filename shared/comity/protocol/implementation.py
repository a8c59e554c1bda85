"""What of a protocol needs torch, grpc and protobuf: its messages, its roles, and the task that a party brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message
from torch import nn

from comity.contract import Contract, Json, Membership, Terms
from comity.data import Splits
from comity.environments import EnvironmentSet
from comity.privacy import Mechanism
from comity.privacy.terms import PrivacyTerms
from comity.protocol.roles import Initiator
from comity.session.contexts import PeerContext, SessionContext
from comity.session.receipt_book import ReceiptBook
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.session.worker import Steppable
from comity.tensors import Layout
from comity.training import Secret
from comity.transport.bundles import Bundle, ReceivedBundle
from comity.transport.peer_connection import PeerConnection

Data = Splits | EnvironmentSet | None
"""A party's data, as its node loads them: samples, games, or none."""


@dataclass(frozen=True)
class Resources:
    """What a party brings to a session.

    Attributes:
        party: Its name.
        models: The contract's models, as this party builds them, with their initial weights; by what the protocol calls
            them.
        data: Its data.
        secret: Its randomness in the session.
        device: Where it computes: `auto`, `cpu`, `cuda` …
        own_models: What it calls models of its own, and where they are.
        settings: Its settings of the protocol; None where the protocol has none, or they are to be passed over.
        mechanism: The noise of its training; None for none.
    """

    party: str
    models: Mapping[str, nn.Module]
    data: Data
    secret: Secret
    device: str = "auto"
    own_models: Mapping[str, str] = field(default_factory=dict)
    settings: Any = None
    mechanism: Mechanism | None = None


class LocalTask(Protocol):
    """What negotiation needs to know of a party's model and data."""

    layout: Layout

    @property
    def samples(self) -> int:
        """Number of training samples."""


class TaskBuilder(Protocol):
    """Makes what a party does in a session of a protocol: of its models, its data and the contract."""

    def complete(self, terms: Terms, data: Data) -> Terms:
        """The terms of a draft in which nothing is left to one side.

        Raises:
            InvalidValue: The drafting party's data do not say what is missing.
        """

    def samples(self, terms: Terms, data: Data) -> int:
        """Samples, or episodes, behind what a party's updates and losses say; 0 for a party without data.

        Raises:
            MalformedMessage: The terms do not go with the data.
        """

    def build(self, contract: Contract, resources: Resources) -> Any:
        """A party's local task, of the class that the protocol's roles work with; at least a `LocalTask`.

        Raises:
            TaskMismatch: The protocol is not for such a task.
            MalformedMessage: The terms are not those of the protocol, or do not go with the task.
            InvalidValue: The terms, or the settings, do not go with the model or the data.
        """


@dataclass(frozen=True, slots=True)
class PrivateTraining:
    """A party's training in a session that noise covers.

    Attributes:
        terms: Which noise.
        sampling_rate: The probability with which a step sees a sample, in (0, 1].
        steps: Local steps in the whole session.
    """

    terms: PrivacyTerms
    sampling_rate: float
    steps: int


@dataclass(frozen=True)
class OfflineBinding:
    """How a protocol's rounds cross where somebody carries them.

    Attributes:
        ask: Builds the initiator, from its context and the bundle that answers the active round, if it is here. Its
            work ends with `AnswerDue` where it is not.
        take: Does at the acceptor what a bundle asks; again, without harm.
        answer: Does the acceptor's work, and returns what answers; None where nothing was asked yet.
        last: What the initiator has left to say when the session is over, from its statements and its last round.
    """

    ask: Callable[[PeerContext, ReceivedBundle | None], Initiator]
    take: Callable[[AcceptedSession, ReceivedBundle], None]
    answer: Callable[[AcceptedSession], Bundle | None]
    last: Callable[[ReceiptBook, int], Sequence[Message]]


@dataclass(frozen=True)
class Implementation:
    """What of a protocol needs torch, grpc and protobuf; a definition names it.

    Attributes:
        terms_message: The protobuf message of the terms.
        task: Makes a party's local task.
        blobs_held: Most blobs of the model's size that a party keeps at a time, from the contract and both memberships.
        help: Builds the acceptor, from its place and the contexts opposite those whom it helps so far.
        ask: Builds the initiator over the network, from its context opposite each acceptor and the line to it.
        ask_in_process: Builds the initiator against acceptors in the same process, whose messages go through the
            wire's encode and decode; takes for each acceptor the initiator's context, the acceptor's context and its role.
        serve: Registers the protocol's services with a server.
        services: Full names of these services.
        private_training: What of a party's training noise covers, from the contract, its membership and its peers'; None
            where it trains without noise.
        merge: Makes one session's metrics of the acceptor's and, by party, the initiators'; for protocols that are joined.
        offline: How its rounds cross in bundles; None where they cannot.
    """

    terms_message: Callable[[], Message]
    task: TaskBuilder
    blobs_held: Callable[[Contract, Membership, Membership], int]
    help: Callable[[SessionContext, Sequence[PeerContext]], Steppable]
    ask: Callable[[Sequence[tuple[PeerContext, PeerConnection]]], Initiator]
    ask_in_process: Callable[[Sequence[tuple[PeerContext, PeerContext, Any]]], Initiator]
    serve: Callable[[grpc.Server, SessionRegistry], None]
    services: tuple[str, ...]
    private_training: Callable[[Contract, Membership, Sequence[Membership]], PrivateTraining | None] | None = None
    merge: Callable[[Mapping[str, Any], Mapping[str, Mapping[str, Any]]], dict[str, Json]] | None = None
    offline: OfflineBinding | None = field(default=None)
