"""A party's place in one session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import Contract, Membership
from comity.session.events import Observer
from comity.session.gate import EgressGate
from comity.session.presence import Presence
from comity.session.receipt_book import ReceiptBook
from comity.session.verdicts import Verdicts
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
        waits: What the session waits for: a role says here that it waits, and for what.
        gates: What leaves, to each peer.
        settings: This party's own settings of the protocol; None where it has none.
        services: What the services of this party's node give to roles, by name; nothing where there is no node.
        verdicts: What was found of what it trains to send.
    """

    contract: Contract
    own: Membership
    task: Any
    blobs: SessionBlobs
    journal: Journal
    observe: Observer
    waits: Waits
    gates: list[EgressGate] = field(default_factory=list)
    settings: Any = None
    services: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Verdicts | None = None


@dataclass(frozen=True)
class PeerContext:
    """A party's place opposite one peer: all that a role is built from.

    Attributes:
        place: What of it is the same whoever is opposite.
        peer: The other party's part.
        blobs: The session's blobs at this party, as far as the peer has to do with them.
        gate: What leaves to the peer.
        receipt_book: Signs this party's statements and checks the peer's.
        presence: Whether the peer answers, as far as this party calls it.
    """

    place: SessionContext
    peer: Membership
    blobs: SessionBlobs
    gate: EgressGate
    receipt_book: ReceiptBook
    presence: Presence = field(default_factory=Presence)

    @property
    def contract(self) -> Contract:
        """See `SessionContext`."""
        return self.place.contract

    @property
    def own(self) -> Membership:
        """See `SessionContext`."""
        return self.place.own

    @property
    def task(self) -> Any:
        """See `SessionContext`."""
        return self.place.task

    @property
    def journal(self) -> Journal:
        """See `SessionContext`."""
        return self.place.journal

    @property
    def observe(self) -> Observer:
        """See `SessionContext`."""
        return self.place.observe

    @property
    def waits(self) -> Waits:
        """See `SessionContext`."""
        return self.place.waits

    @property
    def settings(self) -> Any:
        """See `SessionContext`."""
        return self.place.settings

    @property
    def services(self) -> Mapping[str, Any]:
        """See `SessionContext`."""
        return self.place.services
