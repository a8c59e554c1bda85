"""A party's place in one session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comity.contract import Contract, Membership
from comity.session.blobs import SessionBlobs
from comity.session.events import Observer
from comity.session.gate import EgressGate
from comity.session.journal import Journal
from comity.session.notary import Notary


@dataclass(frozen=True)
class Seat:
    """All that a role is built from.

    Attributes:
        contract: What was agreed.
        own: This party's part.
        peer: The other party's part.
        task: This party's model and data; its class belongs to the protocol.
        blobs: The session's blobs at this party.
        journal: What is done and need not be done again.
        gate: What leaves to the peer.
        notary: Signs this party's statements and checks the peer's.
        observe: Is told what happens.
    """

    contract: Contract
    own: Membership
    peer: Membership
    task: Any
    blobs: SessionBlobs
    journal: Journal
    gate: EgressGate
    notary: Notary
    observe: Observer
