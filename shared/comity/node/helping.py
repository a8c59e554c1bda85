"""A session, from the side of the party that helps: deciding on proposals."""

from __future__ import annotations

import threading

import structlog

from comity.contract import Contract, Membership
from comity.errors import ContractMismatch, PolicyRefusal, UnknownParty, UnsupportedProtocol
from comity.node.party import LocalParty
from comity.node.registry import protocol
from comity.session.blobs import SessionBlobs
from comity.session.codec import contract_from_proto, membership_from_proto
from comity.session.events import Event
from comity.session.hosting import HostedSession, HostedSessions
from comity.session.watched import WatchedLog
from comity.session.worker import SessionWorker
from comity.transport.protocol import ProtocolDefinition, Seat
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

    def accept(self, caller: str, proposal: sessions_pb2.Proposal) -> HostedSession:
        """Agrees to a proposal; to the same one again with the same session.

        Args:
            caller: Party that proposes, by its certificate.
            proposal: The contract and the caller's part in it.

        Raises:
            RefusedError: The contract is refused, with the reason.
            MalformedMessage: The proposal cannot be read.
        """
        definition = self._protocol(proposal.contract)
        contract = contract_from_proto(proposal.contract, definition.terms_message(), definition.terms)
        peer = membership_from_proto(proposal.membership)
        if not caller == contract.asker == peer.party or peer.role != definition.asker:
            expected = f"{caller} as {definition.asker}, which its certificate names"
            raise UnknownParty(
                "the proposal is in another party's name",
                expected=expected,
                received=f"{contract.asker}, {peer.role} {peer.party}",
                action="propose in the name that your certificate states",
            )
        if contract.helpers != (self._party.name,):
            raise UnknownParty(
                "the contract asks somebody else",
                expected=self._party.name,
                received=", ".join(contract.helpers) or "nobody",
                action="propose to each helper a contract with it alone",
            )
        with self._deciding:
            known = self._sessions.find(contract.session)
            if known is not None:
                if (known.contract_hash, known.peer) != (contract.hash, peer):
                    action = "give the new session another id"
                    raise ContractMismatch(
                        "the session exists with another contract",
                        expected="a new id",
                        received=contract.session,
                        action=action,
                    )
                return known
            session = self._set_up(contract, definition, peer)
            self._sessions.add(session)
            return session

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

    def _set_up(self, contract: Contract, definition: ProtocolDefinition, peer: Membership) -> HostedSession:
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
        events: WatchedLog[Event] = WatchedLog()
        blobs = SessionBlobs()
        gate = party.gate(contract, peer.party)

        def observe(event: Event) -> None:
            log.info(event.kind, session=contract.session, round=event.round, **event.fields)
            events.append(event)

        role = definition.help(Seat(contract, own, peer, party.task(contract), blobs, gate, observe))
        observe(
            Event(
                "session-accepted", 0, {"protocol": contract.protocol, "asker": peer.party, "rounds": contract.rounds}
            )
        )
        worker = SessionWorker(role, f"session-{contract.session}")
        return HostedSession(contract, contract.hash, own, peer, blobs, gate, role, worker, events)
