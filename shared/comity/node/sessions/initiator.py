"""A session, from the side of the party that asks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from comity.contract import Contract, Membership, TaskSpec
from comity.errors import InvalidValue, NodeDraining, StorageError, TransportError
from comity.node.party import LocalParty
from comity.node.registry import protocol
from comity.node.sessions.agreement import Negotiation
from comity.node.sessions.script import Script, SessionSection
from comity.node.tasks import completed, signed_model
from comity.node.validation import validated
from comity.session.events import Event, Observer
from comity.session.outcome import Outcome
from comity.session.waiting import OFFLINE
from comity.store.store import StoredSession
from comity.transport.peer_connection import PeerConnection
from comity.transport.protocol import ProtocolDefinition, run

PASSING = (TransportError, StorageError, NodeDraining)
"""Errors that are not the session's fault: it goes on when they have passed."""


def draft_contract(script: Script, party: LocalParty, session: str) -> tuple[Contract, ProtocolDefinition]:
    """The contract that a script describes.

    Args:
        script: The script.
        party: The party that drafts it: the one that asks, or, of a session that many join, the one that helps. Where
            the script does not say what the task is, it is that of its data.
        session: Identifier, for scripts that give none.

    Raises:
        UsageError: The script cannot be used.
        RefusedError: This installation lacks the protocol or the model.
    """
    wanted = script.session
    definition = protocol(wanted.protocol)
    if len(wanted.acceptors) != len(set(wanted.acceptors)) or (len(wanted.acceptors) > 1 and not definition.several):
        raise InvalidValue(
            "session.acceptors cannot be used",
            expected=f"each {definition.acceptor} once" if definition.several else f"one {definition.acceptor}",
            received=", ".join(wanted.acceptors),
            action="name each once" if definition.several else "name one; a session with another is another session",
        )
    task = _task(wanted, party)
    contract = Contract(
        protocol=definition.name,
        version=definition.version,
        session=wanted.id or session,
        seed=wanted.seed,
        rounds=wanted.rounds,
        model=signed_model(wanted.model.name, wanted.model.options, task, wanted.seed),
        task=task,
        initiator="" if definition.many else party.name,
        acceptors=wanted.acceptors,
        egress=definition.egress,
        terms=completed(
            validated(definition.terms, wanted.terms, "session.terms"),
            party.environments if party.is_reinforcement else None,
        ),
    )
    return contract, definition


def _task(wanted: SessionSection, party: LocalParty) -> TaskSpec:
    normalization = wanted.normalization
    if party.is_reinforcement and normalization.mean:
        raise InvalidValue(
            "session.normalization cannot be used", expected="none for games", received=normalization.mean
        )
    if wanted.task is None:
        return party.task_spec(normalization.mean, normalization.std)
    shape, classes = wanted.task.input_shape, wanted.task.classes
    return TaskSpec(input_shape=shape, classes=classes, mean=normalization.mean, std=normalization.std)


def run_session(negotiation: Negotiation, connections: Sequence[PeerConnection], observe: Observer) -> Outcome:
    """Works on a session over the network, from the proposal, or from where it stopped; returns what it came to.

    Args:
        negotiation: What to propose.
        connections: The lines to the acceptors, in the contract's order.
        observe: Is told what happens.

    Raises:
        ComityError: An acceptor refused, could not be reached, or the session failed.
    """
    contract, definition, party = negotiation.contract, negotiation.definition, negotiation.party
    peers = negotiation.agree(connections)
    observe(definition.started(contract, definition.initiator, contract.acceptors))
    for record in party.store.records(contract.session):
        # Those who look on after a restart see what was before it.
        if record.kind == "finished":
            observe(Event("round-finished", record.round, record.fields))
    place = party.place(contract, negotiation.own, observe, peers)
    contexts = [party.context(place, peer) for peer in peers]
    (outcome,) = run(definition.ask(list(zip(contexts, connections, strict=True))))
    return outcome


def stored(contract: Contract, own: Membership, *peers: Membership) -> StoredSession:
    """A session that is entered now, as the store keeps it."""
    return StoredSession(
        contract.session,
        contract.model_dump(mode="json"),
        own.model_dump(mode="json"),
        tuple(each.model_dump(mode="json") for each in peers),
        begun=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def is_offline(session: StoredSession) -> bool:
    """Whether a session's rounds are exchanged without a network."""
    return any(each.reason == OFFLINE.name for each in session.waits)


def stored_contract(session: StoredSession) -> tuple[Contract, ProtocolDefinition]:
    """The contract of a session that was kept, and its protocol."""
    fields: dict[str, Any] = dict(session.contract)
    definition = protocol(fields["protocol"])
    terms = definition.terms.model_validate(fields["terms"])
    return Contract.model_validate(fields | {"terms": terms}), definition
