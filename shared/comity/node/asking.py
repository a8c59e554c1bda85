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
from comity.node.party import LocalParty
from comity.node.registry import protocol
from comity.node.result import SessionResult, summarize
from comity.node.script import MODEL, ModelSection, Script, SessionSection
from comity.node.tasks import completed
from comity.node.validation import validated
from comity.session.events import Event, Observer
from comity.session.gate import EgressGate
from comity.session.outcome import Outcome
from comity.session.receipts import require_pinned
from comity.session.store import Store, StoredSession
from comity.tasks import require_usable, signed_model, task_kind
from comity.transport.link import Link
from comity.transport.protocol import ProtocolDefinition, require_models, run
from comity.transport.sessions import decode_agreement, encode_proposal, end, propose

PASSING = (TransportError, StorageError, NodeDraining)
"""Errors that are not the session's fault: it goes on when they have passed."""


CARRIED = "carried"
"""Record in the journal of an asked session whose rounds are carried: the daemon leaves it alone."""


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
    if len(wanted.helpers) != len(set(wanted.helpers)) or (len(wanted.helpers) > 1 and not definition.several):
        raise InvalidValue(
            "session.helpers cannot be used",
            expected=f"each {definition.helper} once" if definition.several else f"one {definition.helper}",
            received=", ".join(wanted.helpers),
            action="name each once" if definition.several else "name one; a session with another is another session",
        )
    task = _task(wanted, party)
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
        asker="" if definition.many else party.name,
        helpers=wanted.helpers,
        egress=definition.egress,
        terms=completed(
            validated(definition.terms, wanted.terms, "session.terms"), party.arena if party.plays else None
        ),
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
    asker: LocalParty,
    links: Sequence[Link],
    observe: Observer,
) -> tuple[SessionResult, Outcome]:
    """Runs a session over the network, from the proposal, or from where it stopped, to its end.

    Args:
        contract: What to propose.
        definition: Its protocol.
        asker: This party.
        links: The lines to the helpers, in the contract's order.
        observe: Is told what happens.

    Raises:
        ComityError: A helper refused, could not be reached, or the session failed.
    """
    began = time.monotonic()
    own = asker.membership(definition.asker, contract.terms)
    peers = _peers(contract, definition, asker, own, links)
    observe(definition.started(contract, definition.asker, contract.helpers))
    for record in asker.store.records(contract.session):
        # Those who look on after a restart see what was before it.
        if record.kind == "finished":
            observe(Event("round-finished", record.round, record.fields))
    try:
        place = asker.place(contract, own, observe, peers)
        seats = [asker.seat(place, peer) for peer in peers]
        (outcome,) = run(definition.ask(list(zip(seats, links, strict=True))))
    except PASSING:
        # The session is taken up again.
        raise
    except SessionCancelled:
        # It is over at one helper; the others, where there are any, do not know.
        for link in links if len(links) > 1 else ():
            with contextlib.suppress(ComityError):
                end(link, "cancelled")
        raise
    except Exception:
        # Or it would count as one that goes on, against what the helpers' policies allow at a time.
        for link in links:
            with contextlib.suppress(ComityError):
                end(link, "failed")
        raise
    for link in links:
        end(link, "finished")
    return summarize(contract, outcome, asker.store, time.monotonic() - began), outcome


def _peers(
    contract: Contract, definition: ProtocolDefinition, asker: LocalParty, own: Membership, links: Sequence[Link]
) -> list[Membership]:
    """The helpers' parts in the session; where one refuses, those who agreed before are told that it is over."""
    peers: list[Membership] = []
    for place, link in enumerate(links):
        try:
            peers.append(_peer(contract, definition, asker, own, link))
        except PASSING:
            raise
        except Exception:
            for agreed in links[:place]:
                with contextlib.suppress(ComityError):
                    end(agreed, "failed")
            raise
        link.enter(contract.session, contract.hash)
    return peers


def _peer(
    contract: Contract, definition: ProtocolDefinition, asker: LocalParty, own: Membership, link: Link
) -> Membership:
    """A helper's part in the session: as it was agreed before, or as it is agreed now."""
    kept = asker.store.find(contract.session) or stored(contract, own)
    members = [Membership.model_validate(each) for each in kept.peers]
    for member in members:
        if member.party == link.party:
            return member
    peer = _agree(contract, definition, asker, own, link)
    asker.store.save(replace(kept, peers=(*kept.peers, peer.model_dump(mode="json"))))
    return peer


def _agree(
    contract: Contract, definition: ProtocolDefinition, asker: LocalParty, own: Membership, link: Link
) -> Membership:
    """Proposes a contract; returns the helper's part in it."""
    asker.config.policy.review(contract, own, contract.helpers, active=0)
    # What this party itself cannot do, it does not ask for.
    asker.task(contract)
    gate = EgressGate(contract, asker.config.policy, asker.store, link.party)
    proposal = encode_proposal(contract, own, asker.signer, definition)
    gate.intend("contract", "proposal", proposal.ByteSize())
    agreement = propose(link, proposal)
    gate.deliver("contract", "proposal")
    gate.admit("contract", "agreement", agreement.ByteSize())
    peer = decode_agreement(agreement, contract, link.party, definition)
    require_pinned(peer, asker.config.receipt_key_of(peer.party))
    asker.require_room(contract, own, peer, definition)
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


def is_carried(store: Store, session: str) -> bool:
    """Whether the rounds of an asked session are carried."""
    return any(each.kind == CARRIED for each in store.records(session))


def stored_contract(session: StoredSession) -> tuple[Contract, ProtocolDefinition]:
    """The contract of a session that was kept, and its protocol."""
    fields: dict[str, Any] = dict(session.contract)
    definition = protocol(fields["protocol"])
    terms = definition.terms.model_validate(fields["terms"])
    return Contract.model_validate(fields | {"terms": terms}), definition
