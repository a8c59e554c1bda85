"""A session, from the side of the party that asks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from comity.contract import Contract, HeadSpec, InputSpec, Membership, TaskSpec
from comity.errors import ComityError, InvalidValue, NodeDraining, SessionCancelled, StorageError, TransportError
from comity.ledger.receipts import require_pinned
from comity.node.party import LocalParty
from comity.node.sessions.result import SessionResult, summarize
from comity.node.sessions.script import MODEL, ModelSection, Script, SessionSection
from comity.node.validation import validated
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.protocol.roles import run
from comity.session.events import Event, Observer
from comity.session.outcome import Outcome
from comity.store.store import Store, StoredSession
from comity.tasks import require_usable, signed_model, task_kind
from comity.transport.bindings.remote import RemoteChannel
from comity.transport.peer_connection import PeerConnection
from comity.transport.sessions import decode_agreement, encode_proposal, end, propose, require_models, require_task_kind

PASSING = (TransportError, StorageError, NodeDraining)
"""Errors that are not the session's fault: it goes on when they have passed."""


OFFLINE = "offline"
"""Record in the journal of an asked session whose rounds are offline: the daemon leaves it alone."""


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
    several = definition.topology.many_acceptors
    if len(wanted.acceptors) != len(set(wanted.acceptors)) or (len(wanted.acceptors) > 1 and not several):
        raise InvalidValue(
            "session.acceptors cannot be used",
            expected=f"each {definition.acceptor} once" if several else f"one {definition.acceptor}",
            received=", ".join(wanted.acceptors),
            action="name each once" if several else "name one; a session with another is another session",
        )
    task = _task(wanted, party)
    require_task_kind(task.kind, definition)
    contract = Contract(
        protocol=definition.name,
        version=definition.version,
        session=wanted.id or session,
        seed=wanted.seed,
        rounds=wanted.rounds,
        models={
            name: signed_model(each.name, each.options, task, wanted.seed, party.config.models)
            for name, each in _models(wanted, definition).items()
        },
        task=task,
        initiator="" if definition.topology.is_joined else party.name,
        acceptors=wanted.acceptors,
        egress=definition.egress,
        terms=definition.load().task.complete(validated(definition.terms, wanted.terms, "session.terms"), party.data),
    )
    return contract, definition


def _models(wanted: SessionSection, definition: ProtocolDefinition) -> dict[str, ModelSection]:
    """A script's models, which are those that the protocol has."""
    given = wanted.named_models
    for name in definition.models:
        if name not in given:
            raise InvalidValue(
                f"session.models.{name} is missing",
                expected=", ".join(f"[session.models.{each}]" for each in definition.models),
                received=", ".join(given) or "no model",
                action="name the model" if definition.models != (MODEL,) else 'set session.model.name, such as "mlp"',
            )
    require_models(given, definition)
    return given


def _task(wanted: SessionSection, party: LocalParty) -> TaskSpec:
    """What a script says that the models are for; where it does not, what the party's data are for."""
    section = wanted.task
    if section is None:
        return party.task_spec(wanted.normalization)
    heads = section.heads
    if section.classes is not None and not heads:
        heads = (HeadSpec(name=task_kind(section.kind).head, size=section.classes),)
    inputs = {"shape": section.input_shape, "preprocessing": wanted.normalization}
    task = TaskSpec(
        kind=section.kind,
        options=section.options,
        inputs=validated(InputSpec, inputs, "session.task"),
        heads=heads,
    )
    require_usable(task)
    return task


def run_session(
    contract: Contract,
    definition: ProtocolDefinition,
    initiator: LocalParty,
    connections: Sequence[PeerConnection],
    observe: Observer,
) -> tuple[SessionResult, Outcome]:
    """Runs a session over the network, from the proposal, or from where it stopped, to its end.

    Args:
        contract: What to propose.
        definition: Its protocol.
        initiator: This party.
        connections: The lines to the acceptors, in the contract's order.
        observe: Is told what happens.

    Raises:
        ComityError: An acceptor refused, could not be reached, or the session failed.
    """
    began = time.monotonic()
    own = initiator.membership(definition.initiator, contract)
    peers = _peers(contract, definition, initiator, own, connections)
    observe(definition.started(contract, definition.initiator, contract.acceptors))
    for record in initiator.store.records(contract.session):
        # Those who look on after a restart see what was before it.
        if record.kind == "finished":
            observe(Event("round-finished", record.round, record.fields))
    try:
        place = initiator.place(contract, own, observe, peers)
        contexts = [initiator.context(place, peer) for peer in peers]
        channels = [RemoteChannel(connection) for connection in connections]
        (outcome,) = run(definition.load().connected(contexts, channels))
    except PASSING:
        # The session is taken up again.
        raise
    except SessionCancelled:
        # It is over at one acceptor; the others, where there are any, do not know.
        for connection in connections if len(connections) > 1 else ():
            with contextlib.suppress(ComityError):
                end(connection, "cancelled")
        raise
    except Exception:
        # Or it would count as one that goes on, against what the acceptors' policies allow at a time.
        for connection in connections:
            with contextlib.suppress(ComityError):
                end(connection, "failed")
        raise
    for connection in connections:
        end(connection, "finished")
    return summarize(contract, outcome, initiator.store, time.monotonic() - began), outcome


def _peers(
    contract: Contract,
    definition: ProtocolDefinition,
    initiator: LocalParty,
    own: Membership,
    connections: Sequence[PeerConnection],
) -> list[Membership]:
    """The acceptors' parts in the session; where one refuses, those who agreed before are told that it is over."""
    peers: list[Membership] = []
    for place, connection in enumerate(connections):
        try:
            peers.append(_peer(contract, definition, initiator, own, connection))
        except PASSING:
            raise
        except Exception:
            for agreed in connections[:place]:
                with contextlib.suppress(ComityError):
                    end(agreed, "failed")
            raise
        connection.enter(contract.session, contract.hash)
    return peers


def _peer(
    contract: Contract,
    definition: ProtocolDefinition,
    initiator: LocalParty,
    own: Membership,
    connection: PeerConnection,
) -> Membership:
    """An acceptor's part in the session: as it was agreed before, or as it is agreed now."""
    kept = initiator.store.find(contract.session) or stored(contract, own)
    members = [Membership.model_validate(each) for each in kept.peers]
    for member in members:
        if member.party == connection.party:
            return member
    peer = _agree(contract, definition, initiator, own, connection)
    initiator.store.save(replace(kept, peers=(*kept.peers, peer.model_dump(mode="json"))))
    return peer


def _agree(
    contract: Contract,
    definition: ProtocolDefinition,
    initiator: LocalParty,
    own: Membership,
    connection: PeerConnection,
) -> Membership:
    """Proposes a contract; returns the acceptor's part in it."""
    initiator.config.policy.review(contract, own, contract.acceptors, active=0)
    # What this party itself cannot do, it does not ask for.
    initiator.task(contract)
    gate = initiator.gate(contract, connection.party)
    proposal = encode_proposal(contract, own, initiator.signer, definition)
    gate.send(proposal)
    agreement = propose(connection, proposal)
    gate.deliver(proposal)
    gate.admit(agreement)
    peer = decode_agreement(agreement, contract, connection.party, definition)
    require_pinned(peer, initiator.config.receipt_key_of(peer.party))
    initiator.require_room(contract, own, peer, definition)
    return peer


def stored(contract: Contract, own: Membership, *peers: Membership) -> StoredSession:
    """A session that is entered now, as the store keeps it."""
    return StoredSession(
        contract.session,
        contract.model_dump(mode="json"),
        own.model_dump(mode="json"),
        tuple(each.model_dump(mode="json") for each in peers),
        begun=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def is_offline(store: Store, session: str) -> bool:
    """Whether the rounds of an asked session are offline."""
    return any(each.kind == OFFLINE for each in store.records(session))


def stored_contract(session: StoredSession) -> tuple[Contract, ProtocolDefinition]:
    """The contract of a session that was kept, and its protocol."""
    fields: dict[str, Any] = dict(session.contract)
    definition = protocol(fields["protocol"])
    terms = definition.terms.model_validate(fields["terms"])
    return Contract.model_validate(fields | {"terms": terms}), definition
