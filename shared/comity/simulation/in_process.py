"""A session with all parties in one process: the same roles, and the same bytes between them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from comity.contract import INITIAL, Contract, Membership
from comity.errors import InvalidValue
from comity.ledger.ledger import WHOLE
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.result import SessionResult
from comity.node.sessions.script import Script
from comity.node.sessions.summarizing import summarize
from comity.node.sessions.weight_transfers import pass_missing
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.protocol.roles import run
from comity.session.contexts import SessionContext
from comity.session.events import Observer, ignore
from comity.session.outcome import Outcome
from comity.store.memory_store import MemoryStore
from comity.store.places import store_url
from comity.store.secrets import GivenSecrets
from comity.store.sql_store import SqlStore
from comity.transport.bindings.in_process import InProcessChannel, encoded
from comity.transport.negotiation import decode_agreement, decode_proposal, encode_agreement, encode_proposal


def simulate(script: Script, observe: Observer = ignore, *, state: Path | None = None) -> tuple[SessionResult, Outcome]:
    """Runs a session in this process.

    Args:
        script: A script with a table for each party.
        observe: Is told what happens at the party that asks.
        state: Where both parties keep what nodes keep, so that a simulation that was killed goes on; None for memory.

    Raises:
        UsageError: The script cannot be used.
        RefusedError: A party's policy refuses the session.
        SessionFailed: The session failed.
    """
    with ExitStack() as stack:
        initiators, acceptors = parties(script, state)
        for party in (*initiators, *acceptors):
            stack.callback(party.store.close)
        return simulate_with(script, initiators, acceptors, observe)


def simulate_with(
    script: Script, initiators: Sequence[LocalParty], acceptors: Sequence[LocalParty], observe: Observer = ignore
) -> tuple[SessionResult, Outcome]:
    """Runs a session of these parties in this process.

    Args:
        script: What it is about.
        initiators: Those that ask, as `parties` gives them.
        acceptors: Those that help.
        observe: Is told what happens at the party that asks.

    Raises:
        ComityError: See `simulate`.
    """
    began = time.monotonic()
    many = protocol(script.session.protocol).topology.is_joined
    # Whoever is alone sees the whole session: it drafts the contract, and it is looked at.
    center = acceptors[0] if many else initiators[0]
    contract, definition = draft_contract(script, center, f"simulation-{script.session.seed}")
    if contract.terms.participants not in {None, len(initiators)}:
        raise InvalidValue(
            f"the script has another number of parties of role {definition.initiator} than its session",
            expected=contract.terms.participants,
            received=len(initiators),
            action="correct session.terms or the tables",
        )
    asking = [(party, party.membership(definition.initiator, contract)) for party in initiators]
    helping = [(party, party.membership(definition.acceptor, contract)) for party in acceptors]
    for one, others in ((asking, helping), (helping, asking)):
        for party, own in one:
            party.review(contract, own, tuple(each.name for each, _ in others), active=0)
    for ours in asking:
        for theirs in helping:
            _agree(contract, definition, ours, theirs)

    def place(party: LocalParty, own: Membership, peers: Agreeing) -> SessionContext:
        members = [peer for _, peer in peers]
        return party.session_context(contract, own, observe if party is center else ignore, members)

    observe(definition.started(contract, definition.center, _names(asking, helping, many)))
    help_places = [place(*each, asking) for each in helping]
    help_seats = [
        [party.peer_context(own, peer, apart=many) for _, peer in asking]
        for (party, _), own in zip(helping, help_places, strict=True)
    ]
    roles: list[Any] = [definition.load().acceptor(*each) for each in zip(help_places, help_seats, strict=True)]
    ask_places = [place(*each, helping) for each in asking]
    asked = [
        definition.load().connected(
            [party.peer_context(own, peer) for _, peer in helping],
            [InProcessChannel(help_seats[at][number], roles[at]) for at in range(len(helping))],
        )
        for number, ((party, _), own) in enumerate(zip(asking, ask_places, strict=True))
    ]
    outcomes = run(*asked)
    outcome = outcomes[0]
    if many:
        merge = definition.load().merge
        of = {party.name: each for (party, _), each in zip(asking, outcomes, strict=True)}
        metrics = roles[0].outcome().metrics
        if merge is not None:
            metrics = merge(metrics, {name: each.metrics for name, each in of.items()})
        models = tuple(model for name in sorted(of) for model in of[name].models)
        outcome = Outcome(models, metrics, joint=tuple(of[name].digest for name in sorted(of)))
    result = summarize(contract, outcome, center, time.monotonic() - began)
    observe(definition.finished(contract, result.to_json()))
    return result, outcome


Agreeing = Sequence[tuple[LocalParty, Membership]]


def _names(asking: Agreeing, helping: Agreeing, many: bool) -> list[str]:
    return [party.name for party, _ in (asking if many else helping)]


def parties(script: Script, state: Path | None = None) -> tuple[list[LocalParty], list[LocalParty]]:
    """The asking and the helping parties of a script, each in the script's order, with data and stores of their own."""
    acceptors = [name for name in script.session.acceptors if name in script.party]
    initiators = [name for name in script.party if name not in script.session.acceptors]
    alone = not protocol(script.session.protocol).topology.is_joined
    if len(acceptors) != len(script.session.acceptors) or not initiators or (alone and len(initiators) != 1):
        who = "one party that asks" if alone else "each that joins"
        raise InvalidValue(
            "the script's parties are not those of its session",
            expected=f"a [party.NAME] table for {', '.join(script.session.acceptors)} and for {who}",
            received=", ".join(script.party) or "none",
            action="add the tables that are missing; comity demo --print-script shows a script that has them",
        )
    return [_local(script, name, state) for name in initiators], [_local(script, name, state) for name in acceptors]


def _local(script: Script, name: str, state: Path | None) -> LocalParty:
    section = script.party[name]
    # Simulations repeat: a party without a secret of its own gets one from its name.
    secret = section.secret.get_secret_value() if section.secret is not None else f"{name}-{script.session.seed}"
    secrets = GivenSecrets(secret.encode())
    if state is None:
        return LocalParty(name, section, secrets, MemoryStore())
    (state / name / "blobs").mkdir(parents=True, exist_ok=True)
    return LocalParty(name, section, secrets, SqlStore(store_url(state / name)), state / name)


def _agree(
    contract: Contract,
    definition: ProtocolDefinition,
    asking: tuple[LocalParty, Membership],
    helping: tuple[LocalParty, Membership],
) -> None:
    """Passes proposal and agreement by way of the wire, as two nodes do."""
    (initiator, own), (acceptor, peer) = asking, helping
    ours, theirs = initiator.gate(contract, acceptor.name), acceptor.gate(contract, initiator.name)
    proposal = encoded(encode_proposal(contract, own, initiator.signer, definition))
    if contract.is_open:
        pass_missing(contract, (acceptor, theirs), (initiator, ours))
    ours.send(proposal)
    theirs.admit(proposal)
    if not contract.is_open:
        pass_missing(contract, (initiator, ours), (acceptor, theirs))
    agreed, _ = decode_proposal(proposal, definition)
    agreement = encoded(encode_agreement(agreed, peer, acceptor.signer))
    theirs.send(agreement)
    ours.deliver(proposal)
    ours.admit(agreement)
    decode_agreement(agreement, contract, acceptor.name, definition)
    theirs.deliver_all(WHOLE, "contract")
    theirs.deliver_all(WHOLE, INITIAL)
