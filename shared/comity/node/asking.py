"""A session, from the side of the party that asks."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from comity.contract import Contract, Membership
from comity.errors import ComityError, InvalidValue, StorageError, TransportError
from comity.node.party import LocalParty, signed_model
from comity.node.registry import protocol
from comity.node.result import SessionResult, summarize
from comity.node.script import Script
from comity.node.validation import validated
from comity.session.events import Event, Observer
from comity.session.gate import EgressGate
from comity.session.outcome import Outcome
from comity.session.receipts import require_pinned
from comity.session.store import StoredSession
from comity.transport.link import Link
from comity.transport.protocol import ProtocolDefinition
from comity.transport.sessions import decode_agreement, encode_proposal, end, propose


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
    """Runs a session over the network, from the proposal, or from where it stopped, to its end.

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
    known = next((each for each in asker.store.sessions() if each.session == contract.session and each.peer), None)
    if known is None:
        peer = _agree(contract, definition, asker, own, link)
        asker.store.save(stored(contract, own, peer))
    else:
        peer = Membership.model_validate(known.peer)
    link.enter(contract.session, contract.hash)
    observe(
        Event("session-started", 0, {"protocol": contract.protocol, "helper": peer.party, "rounds": contract.rounds})
    )
    seat = asker.seat(contract, own, peer, observe)
    try:
        outcome = definition.ask(seat, link).run()
    except (TransportError, StorageError):
        # The session is taken up again, or nobody would hear that it is over.
        raise
    except Exception:
        # Or it would count as one that goes on, against what the helper's policy allows at a time.
        with contextlib.suppress(ComityError):
            end(link)
        raise
    end(link)
    return summarize(contract, outcome, asker.store, time.monotonic() - began), outcome


def _agree(
    contract: Contract, definition: ProtocolDefinition, asker: LocalParty, own: Membership, link: Link
) -> Membership:
    """Proposes a contract; returns the helper's part in it."""
    asker.config.policy.review(contract, own, contract.helpers, active=0)
    gate = EgressGate(contract, asker.config.policy, asker.store, link.party)
    proposal = encode_proposal(contract, own, asker.signer, definition)
    gate.intend("contract", "proposal", proposal.ByteSize())
    agreement = propose(link, proposal)
    gate.deliver("contract", "proposal")
    gate.admit("contract", "agreement", agreement.ByteSize())
    peer = decode_agreement(agreement, contract, link.party, definition.helper)
    require_pinned(peer, asker.config.receipt_key_of(peer.party))
    asker.require_room(contract, own, peer, definition)
    return peer


def stored(contract: Contract, own: Membership, peer: Membership) -> StoredSession:
    """A session as the store keeps it."""
    return StoredSession(
        contract.session, contract.model_dump(mode="json"), own.model_dump(mode="json"), peer.model_dump(mode="json")
    )


def stored_contract(session: StoredSession) -> tuple[Contract, ProtocolDefinition]:
    """The contract of a session that was kept, and its protocol."""
    fields: dict[str, Any] = dict(session.contract)
    definition = protocol(fields["protocol"])
    terms = definition.terms.model_validate(fields["terms"])
    return Contract.model_validate(fields | {"terms": terms}), definition
