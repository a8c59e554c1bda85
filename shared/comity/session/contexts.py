"""A party's place in one session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import Contract, Membership
from comity.session.events import Observer
from comity.session.gate import EgressGate
from comity.session.presence import Attendance, Presence
from comity.session.receipt_book import ReceiptBook
from comity.session.waiting import Waits
from comity.store.journal import Journal


@dataclass(frozen=True)
class SessionContext:
    """What a party has in a session, whoever is opposite.

    Attributes:
        contract: What was agreed.
        own: This party's part.
        task: This party's model and data; its class belongs to the protocol.
        blobs: Its own blobs in the session.
        journal: What is done and need not be done again.
        observe: Is told what happens.
        gates: What leaves, to each peer.
        settings: This party's own settings of the protocol; None where it has none.
        services: What the services of this party's node give to roles, by name; nothing where there is no node.
    """

    contract: Contract
    own: Membership
    task: Any
    blobs: SessionBlobs
    journal: Journal
    observe: Observer
    gates: list[EgressGate] = field(default_factory=list)
    settings: Any = None
    services: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def waits(self) -> Waits:
        """What the session waits for: a role says here that it waits, and for what."""
        return Waits(self.journal.store, self.journal.session, self.observe)

    @cached_property
    def attendance(self) -> Attendance:
        """Without whom of several peers a round goes on: a role asks them through this where it can do without one."""
        return Attendance(self.journal, self.waits, self.observe)


@dataclass(frozen=True)
class PeerContext:
    """A party's place opposite one peer: all that a role is built from.

    Attributes:
        contract: What was agreed.
        own: This party's part.
        peer: The other party's part.
        task: This party's model and data; its class belongs to the protocol.
        blobs: The session's blobs at this party, as far as the peer has to do with them.
        journal: What is done and need not be done again.
        gate: What leaves to the peer.
        receipt_book: Signs this party's statements and checks the peer's.
        observe: Is told what happens.
        settings: This party's own settings of the protocol; None where it has none.
        services: What the services of this party's node give to roles, by name; nothing where there is no node.
        presence: Whether the peer answers, as far as this party calls it.
    """

    contract: Contract
    own: Membership
    peer: Membership
    task: Any
    blobs: SessionBlobs
    journal: Journal
    gate: EgressGate
    receipt_book: ReceiptBook
    observe: Observer
    settings: Any = None
    services: Mapping[str, Any] = field(default_factory=dict)
    presence: Presence = field(default_factory=Presence)

    @property
    def place(self) -> SessionContext:
        """What of it is the same whoever is opposite."""
        return SessionContext(
            self.contract,
            self.own,
            self.task,
            self.blobs,
            self.journal,
            self.observe,
            [self.gate],
            self.settings,
            self.services,
        )
