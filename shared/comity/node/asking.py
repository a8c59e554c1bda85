"""A session, from the side of the party that asks."""

from __future__ import annotations

import time

from comity.contract import Contract
from comity.errors import InvalidValue
from comity.node.party import LocalParty, signed_model
from comity.node.registry import protocol
from comity.node.result import SessionResult, summarize
from comity.node.script import Script
from comity.node.validation import validated
from comity.session.blobs import SessionBlobs
from comity.session.events import Event, Observer
from comity.session.outcome import Outcome
from comity.transport.link import Link
from comity.transport.protocol import ProtocolDefinition, Seat
from comity.transport.sessions import agreed_membership, encode_proposal, end, propose


def draft_contract(script: Script, asker: LocalParty, session: str) -> tuple[Contract, ProtocolDefinition]:
    """The contract that a script describes.

    Args:
        script: The script.
        asker: The party that asks; the task is that of its data.
        session: Identifier, for scripts that give none.

    Raises:
        UsageError: The script cannot be used.
        RefusedError: This installation lacks the protocol or the model.
    """
    wanted = script.session
    definition = protocol(wanted.protocol)
    if len(wanted.helpers) != 1:
        raise InvalidValue(
            "session.helpers cannot be used", expected=f"one {definition.helper}", received=len(wanted.helpers)
        )
    task = asker.task_spec(wanted.normalization.mean, wanted.normalization.std)
    contract = Contract(
        protocol=definition.name,
        version=definition.version,
        session=wanted.id or session,
        seed=wanted.seed,
        rounds=wanted.rounds,
        model=signed_model(wanted.model.name, wanted.model.options, task, wanted.seed),
        task=task,
        asker=asker.name,
        helpers=wanted.helpers,
        egress=definition.egress,
        terms=validated(definition.terms, wanted.terms, "session.terms"),
    )
    return contract, definition


def run_session(
    contract: Contract, definition: ProtocolDefinition, asker: LocalParty, link: Link, observe: Observer
) -> tuple[SessionResult, Outcome]:
    """Runs a session over the network, from the proposal to its end.

    Args:
        contract: What to propose.
        definition: Its protocol.
        asker: This party.
        link: The line to the helper.
        observe: Is told what happens.

    Raises:
        ComityError: The helper refused, could not be reached, or the session failed.
    """
    began = time.monotonic()
    own = asker.membership(definition.asker)
    asker.config.policy.review(contract, own, contract.helpers, active=0)
    task = asker.task(contract)
    gate = asker.gate(contract, link.party)
    proposal = encode_proposal(contract, own, definition)
    gate.release("contract", "proposal", proposal.ByteSize())
    agreement = propose(link, proposal)
    gate.admit("contract", "agreement", agreement.ByteSize())
    peer = agreed_membership(agreement, contract, link.party, definition.helper)
    link.enter(contract.session, contract.hash)
    observe(
        Event("session-started", 0, {"protocol": contract.protocol, "helper": peer.party, "rounds": contract.rounds})
    )
    seat = Seat(contract, own, peer, task, SessionBlobs(), gate, observe)
    outcome = definition.ask(seat, link).run()
    end(link)
    return summarize(contract, outcome, asker.ledger, time.monotonic() - began), outcome
