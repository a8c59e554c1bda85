"""A session with all parties in one process: the same roles, and the same bytes between them."""

from __future__ import annotations

import time

from comity.errors import InvalidValue
from comity.node.asking import draft_contract
from comity.node.party import LocalParty
from comity.node.result import SessionResult, summarize
from comity.node.script import Script
from comity.session.blobs import SessionBlobs
from comity.session.codec import contract_from_proto, membership_to_proto
from comity.session.events import Event, Observer, nobody
from comity.session.ledger import MemoryLedger
from comity.session.outcome import Outcome
from comity.transport.in_process import pass_message
from comity.transport.protocol import ProtocolDefinition, Seat
from comity.transport.sessions import agreed_membership, encode_proposal
from comity.wire.v1 import sessions_pb2


def simulate(script: Script, observe: Observer = nobody) -> tuple[SessionResult, Outcome]:
    """Runs a session in this process.

    Args:
        script: A script with a table for each party.
        observe: Is told what happens at the party that asks.

    Raises:
        UsageError: The script cannot be used.
        RefusedError: A party's policy refuses the session.
        SessionFailed: The session failed.
    """
    began = time.monotonic()
    asker, helper = parties(script)
    contract, definition = draft_contract(script, asker, f"simulation-{script.session.seed}")
    own, peer = asker.membership(definition.asker), helper.membership(definition.helper)
    asker.config.policy.review(contract, own, (helper.name,), active=0)
    helper.config.policy.review(contract, peer, (asker.name,), active=0)
    seat = Seat(contract, own, peer, asker.task(contract), SessionBlobs(), asker.gate(contract, helper.name), observe)
    other = Seat(contract, peer, own, helper.task(contract), SessionBlobs(), helper.gate(contract, asker.name), nobody)
    _negotiate(definition, seat, other)
    observe(
        Event("session-started", 0, {"protocol": contract.protocol, "helper": helper.name, "rounds": contract.rounds})
    )
    outcome = definition.ask_in_process(seat, other, definition.help(other)).run()
    return summarize(contract, outcome, asker.ledger, time.monotonic() - began), outcome


def parties(script: Script) -> tuple[LocalParty, LocalParty]:
    """The asking and the helping party of a script, with data and ledgers of their own."""
    helpers = [name for name in script.party if name in script.session.helpers]
    askers = [name for name in script.party if name not in script.session.helpers]
    if len(helpers) != len(script.session.helpers) or len(askers) != 1:
        raise InvalidValue(
            "the script's parties are not those of its session",
            expected=f"a [party.NAME] table for {', '.join(script.session.helpers)} and for one party that asks",
            received=", ".join(script.party) or "none",
        )
    asker, helper = (_local(script, name) for name in (askers[0], helpers[0]))
    return asker, helper


def _local(script: Script, name: str) -> LocalParty:
    section = script.party[name]
    # Simulations repeat: a party without a secret of its own gets one from its name.
    secret = section.secret.get_secret_value() if section.secret is not None else f"{name}-{script.session.seed}"
    return LocalParty(name, section, secret.encode(), MemoryLedger())


def _negotiate(definition: ProtocolDefinition, seat: Seat, other: Seat) -> None:
    """Passes proposal and agreement by way of the wire, as two nodes do."""
    offered = encode_proposal(seat.contract, seat.own, definition)
    proposal = pass_message(offered, "contract", "proposal", 0, seat, other)
    contract = contract_from_proto(proposal.contract, definition.terms_message(), definition.terms)
    accepted = sessions_pb2.Agreement(contract_hash=contract.hash, membership=membership_to_proto(other.own))
    agreement = pass_message(accepted, "contract", "agreement", 0, other, seat)
    agreed_membership(agreement, seat.contract, other.own.party, definition.helper)
