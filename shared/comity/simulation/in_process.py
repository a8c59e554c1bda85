"""A session with all parties in one process: the same roles, and the same bytes between them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from comity.contract import Contract, Membership
from comity.errors import InvalidValue
from comity.node.asking import draft_contract
from comity.node.party import LocalParty
from comity.node.result import SessionResult, summarize
from comity.node.script import Script
from comity.session.events import Observer, nobody
from comity.session.gate import EgressGate
from comity.session.memory_store import MemoryStore
from comity.session.outcome import Outcome
from comity.session.sql_store import SqlStore, store_url
from comity.transport.in_process import encoded
from comity.transport.protocol import ProtocolDefinition, run
from comity.transport.sessions import decode_agreement, decode_proposal, encode_agreement, encode_proposal


def simulate(script: Script, observe: Observer = nobody, *, state: Path | None = None) -> tuple[SessionResult, Outcome]:
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
    began = time.monotonic()
    with ExitStack() as stack:
        asker, helper = parties(script, state)
        for party in (asker, helper):
            stack.callback(party.store.close)
        result, outcome = _run(script, asker, helper, observe)
    return replace(result, wall_s=time.monotonic() - began), outcome


def _run(script: Script, asker: LocalParty, helper: LocalParty, observe: Observer) -> tuple[SessionResult, Outcome]:
    contract, definition = draft_contract(script, asker, f"simulation-{script.session.seed}")
    own, peer = asker.membership(definition.asker), helper.membership(definition.helper)
    asker.config.policy.review(contract, own, (helper.name,), active=0)
    helper.config.policy.review(contract, peer, (asker.name,), active=0)
    _agree(contract, definition, (asker, own), (helper, peer))
    seat = asker.seat(asker.place(contract, own, observe), peer, asker.blobs(contract.session))
    other = helper.seat(helper.place(contract, peer, nobody), own, helper.blobs(contract.session))
    observe(definition.started(contract, definition.asker, [helper.name]))
    helping = definition.help(other.place, [other])
    (outcome,) = run(definition.ask_in_process([(seat, other, helping)]))
    return summarize(contract, outcome, asker.store, 0.0), outcome


def parties(script: Script, state: Path | None = None) -> tuple[LocalParty, LocalParty]:
    """The asking and the helping party of a script, with data and stores of their own."""
    helpers = [name for name in script.party if name in script.session.helpers]
    askers = [name for name in script.party if name not in script.session.helpers]
    if len(helpers) != len(script.session.helpers) or len(askers) != 1:
        raise InvalidValue(
            "the script's parties are not those of its session",
            expected=f"a [party.NAME] table for {', '.join(script.session.helpers)} and for one party that asks",
            received=", ".join(script.party) or "none",
            action="add the tables that are missing; comity demo --print-script shows a script that has them",
        )
    asker, helper = (_local(script, name, state) for name in (askers[0], helpers[0]))
    return asker, helper


def _local(script: Script, name: str, state: Path | None) -> LocalParty:
    section = script.party[name]
    # Simulations repeat: a party without a secret of its own gets one from its name.
    secret = section.secret.get_secret_value() if section.secret is not None else f"{name}-{script.session.seed}"
    if state is None:
        return LocalParty(name, section, secret.encode(), MemoryStore())
    blobs = state / name / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    return LocalParty(name, section, secret.encode(), SqlStore(store_url(state / name)), blobs)


def _agree(
    contract: Contract,
    definition: ProtocolDefinition,
    asking: tuple[LocalParty, Membership],
    helping: tuple[LocalParty, Membership],
) -> None:
    """Passes proposal and agreement by way of the wire, as two nodes do."""
    (asker, own), (helper, peer) = asking, helping
    ours = EgressGate(contract, asker.config.policy, asker.store, helper.name)
    theirs = EgressGate(contract, helper.config.policy, helper.store, asker.name)
    proposal = encoded(encode_proposal(contract, own, asker.signer, definition))
    ours.intend("contract", "proposal", proposal.ByteSize())
    theirs.admit("contract", "proposal", proposal.ByteSize())
    agreed, _ = decode_proposal(proposal, definition)
    agreement = encoded(encode_agreement(agreed, peer, helper.signer))
    theirs.intend("contract", "agreement", agreement.ByteSize())
    ours.deliver("contract", "proposal")
    ours.admit("contract", "agreement", agreement.ByteSize())
    decode_agreement(agreement, contract, helper.name, definition)
    theirs.deliver_all(0)
