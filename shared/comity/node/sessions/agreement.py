"""How the party that asks comes to an agreement with each of those whom it asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from comity.contract import Contract, Membership
from comity.errors import UnknownSession, UnknownWeights
from comity.ledger.receipts import require_pinned
from comity.node.party import LocalParty
from comity.node.sessions.room import promise
from comity.node.sessions.weight_transfers import fetch_missing, send_missing
from comity.protocol.definition import ProtocolDefinition
from comity.session.gate import EgressGate
from comity.session.waiting import APPROVAL_ELSEWHERE, Waits
from comity.transport.negotiation import decode_agreement, encode_proposal
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import DECISION_PAUSES_S
from comity.transport.sessions import propose
from comity.wire.v1 import sessions_pb2

_TRIALS = 3
"""How often weights are sent to an acceptor that forgets that it waits for them."""


@dataclass(frozen=True)
class Negotiation:
    """A contract on its way to an agreement.

    Attributes:
        contract: What is proposed.
        definition: Its protocol.
        party: The party that asks.
        own: Its part in the session.
        waits: What the session waits for.
        pause: Waits some seconds before it is asked again; raises where the session is not wanted any more.
    """

    contract: Contract
    definition: ProtocolDefinition
    party: LocalParty
    own: Membership
    waits: Waits
    pause: Callable[[float], None]

    def agree(self, connections: Sequence[PeerConnection]) -> list[Membership]:
        """The parts of those who are asked, as agreed before or now; waits for those whose operators decide.

        Args:
            connections: The lines to them, in the contract's order; they quote the contract from then on.

        Raises:
            RefusedError: One of them refuses; says why.
            ComityError: One of them cannot be reached, or answers what does not fit.
        """
        agreed = {each.party: each for each in self._agreed()}
        undecided: set[str] = set()
        pause_s, longest_s = DECISION_PAUSES_S
        while len(agreed) < len(connections):
            for connection in connections:
                if connection.party in agreed:
                    continue
                answer = self._propose(connection)
                if answer is not None:
                    agreed[connection.party] = answer[0]
                    self._keep(*answer)
                    if connection.party in undecided:
                        self.waits.end(APPROVAL_ELSEWHERE, connection.party)
                elif connection.party not in undecided:
                    undecided.add(connection.party)
                    self.waits.begin(APPROVAL_ELSEWHERE, connection.party)
            if len(agreed) < len(connections):
                self.pause(pause_s)
                pause_s = min(pause_s * 1.5, longest_s)
        for connection in connections:
            connection.enter(self.contract.session, self.contract.hash)
        return [agreed[connection.party] for connection in connections]

    def _agreed(self) -> list[Membership]:
        kept = self.party.store.find(self.contract.session)
        return [] if kept is None else [Membership.model_validate(each) for each in kept.peers]

    def _keep(self, peer: Membership, promised: int) -> None:
        store = self.party.store
        with store.transaction():
            # What it waits for may have changed meanwhile.
            kept = store.find(self.contract.session)
            if kept is None:
                raise UnknownSession(
                    "the session is not kept here", expected="one that was entered", received=self.contract.session
                )
            peers = (*kept.peers, peer.model_dump(mode="json"))
            store.save(replace(kept, peers=peers, promised=max(kept.promised, promised)))

    def _propose(self, connection: PeerConnection) -> tuple[Membership, int] | None:
        """Proposes the contract; returns the other's part and what is promised on disk, None while its operator decides."""
        party, contract = self.party, self.contract
        gate = party.gate(contract, connection.party)
        if contract.is_open:
            fetch_missing(party, contract, connection, gate)
        party.review(contract, self.own, contract.acceptors, active=0)
        # What this party itself cannot do, it does not ask for.
        party.tried_task(contract)
        proposal = encode_proposal(contract, self.own, party.signer, self.definition)
        gate.send(proposal)
        try:
            agreement = propose(connection, proposal)
        except UnknownWeights:
            if contract.is_open or not contract.weights_sent:
                raise
            agreement = self._propose_with_weights(connection, gate, proposal)
        if agreement is None:
            return None
        gate.deliver(proposal)
        gate.admit(agreement)
        peer = decode_agreement(agreement, contract, connection.party, self.definition)
        require_pinned(peer, party.config.receipt_key_of(peer.party))
        return peer, promise(party, contract, self.own, peer, self.definition)

    def _propose_with_weights(
        self, connection: PeerConnection, gate: EgressGate, proposal: sessions_pb2.Proposal
    ) -> sessions_pb2.Agreement | None:
        """Sends an acceptor the weights that it lacks, and proposes again."""
        for trial in range(_TRIALS):
            try:
                send_missing(self.party, self.contract, connection, gate)
                return propose(connection, proposal)
            except (UnknownSession, UnknownWeights):
                # It may have been started anew meanwhile: the proposal tells it what to wait for.
                if trial + 1 == _TRIALS:
                    raise
                with suppress(UnknownWeights):
                    return propose(connection, proposal)
        raise AssertionError("the last trial returns or raises")
