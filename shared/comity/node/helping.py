"""A session, from the side of the party that helps: deciding on proposals, and going on after a restart."""

from __future__ import annotations

import threading
from dataclasses import replace

import structlog

from comity.contract import Contract, Membership
from comity.errors import ComityError, ContractMismatch, PolicyRefusal, UnknownParty, UnsupportedProtocol
from comity.node.asking import stored, stored_contract
from comity.node.party import LocalParty
from comity.node.registry import protocol
from comity.session.events import Event, Json
from comity.session.hosting import HostedSession, HostedSessions
from comity.session.ledger import Fact
from comity.session.receipts import require_pinned
from comity.session.watched import WatchedLog
from comity.session.worker import SessionWorker
from comity.transport.protocol import ProtocolDefinition
from comity.transport.sessions import decode_proposal
from comity.wire.v1 import sessions_pb2

log = structlog.get_logger()


class Helper:
    """Decides on proposals and sets up the sessions that it accepts.

    Args:
        party: This party.
        role: The role in which it helps.
        sessions: Where accepted sessions go.
    """

    def __init__(self, party: LocalParty, role: str, sessions: HostedSessions) -> None:
        self._party = party
        self._role = role
        self._sessions = sessions
        self._deciding = threading.Lock()

    def restore(self) -> None:
        """Takes up the sessions that were on when the node stopped."""
        for kept in self._party.store.sessions():
            if kept.state != "active" or kept.own["role"] != self._role:
                continue
            try:
                contract, definition = stored_contract(kept)
                if definition.helper != self._role:
                    continue
                own, peer = Membership.model_validate(kept.own), Membership.model_validate(kept.peer)
                self._sessions.add(self._set_up(contract, definition, own, peer))
                log.info("session-resumed", session=kept.session)
            except ComityError as error:
                # The others go on; its asker is told that there is no such session.
                log.exception("session-not-resumed", session=kept.session, error=str(error))

    def accept(self, caller: str, proposal: sessions_pb2.Proposal) -> HostedSession:
        """Agrees to a proposal; to the same one again with the same session.

        Args:
            caller: Party that proposes, by its certificate.
            proposal: The contract and the caller's part in it.

        Raises:
            RefusedError: The contract is refused, with the reason.
            MalformedMessage: The proposal cannot be read.
            ReceiptInvalid: It is not signed with the key that the caller is known by.
        """
        definition = self._protocol(proposal.contract)
        contract, peer = decode_proposal(proposal, definition)
        if not caller == contract.asker == peer.party or peer.role != definition.asker:
            expected = f"{caller} as {definition.asker}, which its certificate names"
            received = f"{contract.asker}, {peer.role} {peer.party}"
            raise UnknownParty(
                "the proposal is in another party's name",
                expected=expected,
                received=received,
                action="propose in the name that your certificate states",
            )
        require_pinned(peer, self._party.config.receipt_key_of(peer.party))
        if contract.helpers != (self._party.name,):
            received = ", ".join(contract.helpers) or "nobody"
            raise UnknownParty(
                "the contract asks somebody else",
                expected=self._party.name,
                received=received,
                action="propose to each helper a contract with it alone",
            )
        with self._deciding:
            running = self._sessions.find(contract.session)
            if running is not None and (running.contract.hash, running.seat.peer) == (contract.hash, peer):
                return running
            if any(each.session == contract.session for each in self._party.store.sessions()):
                action = "give the new session another id"
                raise ContractMismatch(
                    "the session exists already, with another contract or ended",
                    expected="a new id",
                    received=contract.session,
                    action=action,
                )
            return self._open(contract, definition, peer)

    def finish(self, session: HostedSession) -> None:
        """Ends a session that its asker is done with, and drops what it kept but the ledger."""
        self._sessions.remove(session)
        contract, peer = session.contract, session.seat.peer
        with self._party.store.transaction():
            self._party.store.record(Fact("ended", contract.session, 0, peer.party))
            self._party.store.save(replace(stored(contract, session.seat.own, peer), state="finished"))
        self._party.clear(contract.session)
        log.info("session-ended", session=contract.session)

    def _protocol(self, contract: sessions_pb2.Contract) -> ProtocolDefinition:
        definition = protocol(contract.protocol)
        if definition.helper != self._role or definition.version != contract.version:
            expected = f"{definition.name} version {definition.version}, helped by a {definition.helper}"
            received = f"version {contract.version}, asked of a {self._role}"
            raise UnsupportedProtocol(
                "the contract's protocol is not offered here",
                expected=expected,
                received=received,
                action="run the same version of comity on both sides",
            )
        return definition

    def _open(self, contract: Contract, definition: ProtocolDefinition, peer: Membership) -> HostedSession:
        party = self._party
        own = party.membership(definition.helper)
        party.config.policy.review(contract, own, (peer.party,), active=len(self._sessions))
        if not set(contract.egress) <= set(definition.egress):
            raise PolicyRefusal(
                "the contract lets more cross than its protocol needs",
                expected=", ".join(definition.egress),
                received=", ".join(contract.egress),
                action="leave the others out of the contract",
            )
        party.require_room(contract, own, peer, definition)
        session = self._set_up(contract, definition, own, peer)
        party.store.save(stored(contract, own, peer))
        self._sessions.add(session)
        return session

    def _set_up(
        self, contract: Contract, definition: ProtocolDefinition, own: Membership, peer: Membership
    ) -> HostedSession:
        events: WatchedLog[Event] = WatchedLog()

        def observe(event: Event) -> None:
            log.info(event.kind, session=contract.session, round=event.round, **event.fields)
            events.append(event)

        seat = self._party.seat(contract, own, peer, observe)
        role = definition.help(seat)
        accepted: dict[str, Json] = {"protocol": contract.protocol, "asker": peer.party, "rounds": contract.rounds}
        observe(Event("session-accepted", 0, accepted))
        return HostedSession(seat, role, SessionWorker(role, f"session-{contract.session}"), events)
