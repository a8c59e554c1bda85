"""The parties of a session in this process, joined by whatever binding a test asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from comity.contract import Contract
from comity.ledger.ledger import loaded
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script, parse_script
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.protocol.roles import run
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.outcome import Outcome
from comity.simulation.in_process import parties
from comity.transport.bindings.channel import Channel
from tests.ledgers import Charges, charged_once

Join = Callable[[PeerContext, PeerContext, Any], Channel]
"""A way from an initiator to an acceptor, from both contexts and the acceptor's role."""


@dataclass(frozen=True)
class Company:
    """Everybody of a session, with nothing done yet.

    Attributes:
        script: What it is about.
        definition: The protocol.
        contract: What was agreed.
        initiators: Contexts of each initiator opposite the acceptors.
        acceptors: Contexts of each acceptor opposite the initiators.
        roles: The acceptors' roles.
        events: What happened, by party.
        parties: The parties, by name.
    """

    script: Script
    definition: ProtocolDefinition
    contract: Contract
    initiators: Sequence[Sequence[PeerContext]]
    acceptors: Sequence[Sequence[PeerContext]]
    roles: Sequence[Any]
    events: dict[str, list[Event]]
    parties: dict[str, LocalParty]

    def port(self, join: Join, initiator: int = 0, acceptor: int = 0) -> Any:
        """An initiator's port to an acceptor."""
        own, other = self.initiators[initiator][acceptor], self.acceptors[acceptor][initiator]
        return self.definition.load().service.client(own, join(own, other, self.roles[acceptor]))

    def run(self, join: Join) -> list[Outcome]:
        """The whole session; where calls wait, each initiator is in a thread of its own."""
        ports = [[self.port(join, number, at) for at in range(len(own))] for number, own in enumerate(self.initiators)]
        pairs = zip(self.initiators, ports, strict=True)
        asking = [self.definition.load().initiator(*each) for each in pairs]
        if ports[0][0]._channel.waits:
            with ThreadPoolExecutor(len(asking)) as pool:
                return [outcome for (outcome,) in pool.map(run, asking)]
        return run(*asking)

    def digest(self, outcomes: Sequence[Outcome]) -> str:
        """What a simulation of the session says that it came to."""
        if not self.definition.topology.is_joined:
            return outcomes[0].digest
        names = (contexts[0].own.party for contexts in self.initiators)
        of = dict(zip(names, (each.digest for each in outcomes), strict=True))
        return blake3(b"".join(bytes.fromhex(of[name]) for name in sorted(of))).hexdigest()

    def charges(self) -> Charges:
        """What was charged: once, as both ledgers say."""
        return charged_once(self.script, {name: loaded(each.store.chains()) for name, each in self.parties.items()})


def company(text: str) -> Company:
    """The parties of a script, who have agreed."""
    script = parse_script(text)
    definition = protocol(script.session.protocol)
    sides = parties(script)
    initiators, acceptors = sides
    contract, _ = draft_contract(
        script, (acceptors if definition.topology.is_joined else initiators)[0], str(script.session.id)
    )
    members = {
        each.name: each.membership(role, contract)
        for role, side in zip(definition.roles, sides, strict=True)
        for each in side
    }
    events: dict[str, list[Event]] = {name: [] for name in members}
    contexts, places = {}, {}
    for side, others in ((initiators, acceptors), (acceptors, initiators)):
        for party in side:
            peers = [members[each.name] for each in others]
            place = party.session_context(contract, members[party.name], events[party.name].append, peers)
            places[party.name] = place
            apart = definition.topology.is_joined and party in acceptors
            contexts[party.name] = [party.peer_context(place, peer, apart=apart) for peer in peers]
    return Company(
        script,
        definition,
        contract,
        [contexts[each.name] for each in initiators],
        [contexts[each.name] for each in acceptors],
        [definition.load().acceptor(places[each.name], contexts[each.name]) for each in acceptors],
        events,
        {each.name: each for side in sides for each in side},
    )
