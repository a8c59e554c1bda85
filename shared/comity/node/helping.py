"""A session, from the side of the party that helps: deciding on proposals, and going on after a restart."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from comity.contract import Contract, Membership
from comity.errors import (
    ComityError,
    ContractMismatch,
    InvalidValue,
    PolicyRefusal,
    UnknownParty,
    UnknownSession,
    UnsupportedProtocol,
)
from comity.node.asking import stored, stored_contract
from comity.node.failures import failure
from comity.node.logs import log_event
from comity.node.party import LocalParty
from comity.node.registry import protocol
from comity.node.result import summarize
from comity.session.events import Event, Json
from comity.session.hosting import HostedSession, HostedSessions
from comity.session.outcome import Outcome
from comity.session.receipts import require_pinned
from comity.session.seat import Place, Seat
from comity.session.watched import WatchedLog
from comity.session.worker import SessionWorker, Steppable
from comity.transport.protocol import ProtocolDefinition
from comity.transport.sessions import Ending, decode_proposal
from comity.wire.v1 import sessions_pb2

log = structlog.get_logger()


class HostingRole(Steppable, Protocol):
    """A helping role that many join."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to do for anybody."""

    @property
    def failure(self) -> ComityError | None:
        """Why the session cannot go on, where that is so."""

    def wakes_in(self) -> float | None:
        """Seconds until there may be work although nobody asks for anything; None for never."""

    def admit(self, seat: Seat) -> None:
        """Lets an asker in; again, one that is in."""

    def leave(self, party: str) -> None:
        """Goes on without an asker."""

    def outcome(self) -> Outcome:
        """What the session came to, when it is over."""


@dataclass(frozen=True)
class OpenedSession:
    """A session that many may join.

    Attributes:
        place: This party's place in it.
        role: The protocol's helping role.
        worker: Its thread.
        events: What happened since the node started.
    """

    place: Place
    role: HostingRole
    worker: SessionWorker
    events: WatchedLog[Event]

    @property
    def contract(self) -> Contract:
        """What those who join agree to."""
        return self.place.contract


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
        self._opened: dict[str, OpenedSession] = {}
        self._results: dict[str, dict[str, Json]] = {}
        self._deciding = threading.Lock()

    def restore(self) -> None:
        """Takes up the sessions that were on when the node stopped."""
        for kept in self._party.store.sessions():
            if kept.own["role"] != self._role:
                continue
            peers = [Membership.model_validate(each) for each in kept.peers]
            if kept.state == "cancelled":
                for peer in peers:
                    self._sessions.cancel(kept.session, peer.party)
            if kept.state != "active":
                continue
            try:
                contract, definition = stored_contract(kept)
                if definition.helper != self._role:
                    continue
                own = Membership.model_validate(kept.own)
                self._set_up(contract, definition, own, peers)
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
        asker = peer.party if definition.many else contract.asker
        if not caller == asker == peer.party or contract.is_open != definition.many or peer.role != definition.asker:
            expected = f"{caller} as {definition.asker}, which its certificate names"
            received = f"{contract.asker or 'an open session'}, {peer.role} {peer.party}"
            raise UnknownParty(
                "the proposal is in another party's name",
                expected=expected,
                received=received,
                action="propose in the name that your certificate states",
            )
        require_pinned(peer, self._party.config.receipt_key_of(peer.party))
        if self._party.name not in contract.helpers:
            raise UnknownParty(
                "the contract asks somebody else",
                expected=self._party.name,
                received=", ".join(contract.helpers) or "nobody",
                action="propose it to those whom it asks",
            )
        with self._deciding:
            running = self._sessions.find(contract.session, peer.party)
            if running is not None and (running.contract.hash, running.seat.peer) == (contract.hash, peer):
                return running
            if (opened := self._opened.get(contract.session)) is not None and opened.contract.hash == contract.hash:
                return self._admit(opened, peer)
            if self._party.store.find(contract.session) is not None:
                action = "give the new session another id"
                raise ContractMismatch(
                    "the session exists already, with another contract or ended",
                    expected="a new id",
                    received=contract.session,
                    action=action,
                )
            return self._open(contract, definition, peer)

    def finish(self, session: HostedSession, ending: Ending) -> None:
        """Ends a session that its asker is done with, and drops what it kept but the ledger.

        One that many joined goes on without that asker, and ends with the last of them.
        """
        name, asker = session.contract.session, session.seat.peer.party
        opened = self._opened.get(name)
        if opened is not None:
            opened.worker.call(lambda: opened.role.leave(asker))
        self._sessions.remove(session, stop=opened is None)
        log.info("session-left", session=name, peer=asker, ending=ending)
        if self._sessions.find(name) is not None or (opened is not None and not opened.role.over):
            return
        if opened is not None:
            self._conclude(opened)
        self._end(name, ending if opened is None else "finished" if opened.role.failure is None else "failed")

    def _conclude(self, opened: OpenedSession) -> None:
        """Keeps what a session came to that many joined."""
        if (error := opened.role.failure) is not None:
            self._results[opened.contract.session] = failure(error)
            return
        began = datetime.fromisoformat(self._begun(opened.contract.session))
        wall_s = (datetime.now(UTC) - began).total_seconds()
        outcome = opened.role.outcome()
        result = summarize(opened.contract, outcome, self._party.store, wall_s).to_json()
        self._party.keep_result(opened.contract.session, outcome, result)
        self._results[opened.contract.session] = result
        opened.place.observe(protocol(opened.contract.protocol).finished(opened.contract, result))

    def _begun(self, session: str) -> str:
        kept = self._party.store.find(session)
        return kept.begun if kept is not None else ""

    def cancel(self, session: str) -> bool:
        """Ends a session before its time; its askers are told at their next call. Returns whether it is on here."""
        opened = self._opened.get(session)
        hosted = self._sessions.all(session)
        for each in hosted:
            self._sessions.cancel(session, each.seat.peer.party)
            self._sessions.remove(each)
        if opened is not None or hosted:
            self._end(session, "cancelled")
        return opened is not None or bool(hosted)

    def _end(self, session: str, ending: Ending) -> None:
        opened = self._opened.pop(session, None)
        if opened is not None:
            opened.worker.stop()
            opened.events.close()
        self._party.end(session, ending, self._results.pop(session, None))
        log.info("session-ended", session=session, ending=ending)

    def open(self, contract: Contract, definition: ProtocolDefinition) -> None:
        """Opens a session, which those whom the policy admits may join.

        Raises:
            InvalidValue: Its identifier is taken, or it names another helper.
            RefusedError: This party's own policy, model or data refuse it.
        """
        if contract.helpers != (self._party.name,):
            raise InvalidValue(
                "session.helpers names somebody else", expected=self._party.name, received=", ".join(contract.helpers)
            )
        with self._deciding:
            if self._party.store.find(contract.session) is not None:
                raise InvalidValue("the session's id is taken", expected="a new id", received=contract.session)
            own = self._party.membership(definition.helper, contract.terms)
            self._party.config.policy.review(contract, own, (), active=self.active)
            self._party.require_room(contract, own, own, definition)
            self._party.store.save(stored(contract, own))
            self._set_up(contract, definition, own, [])

    def fetch(self, session: str) -> tuple[Contract, ProtocolDefinition]:
        """The contract of a session that is open, with its protocol.

        Raises:
            UnknownSession: There is none.
        """
        opened = self._opened.get(session)
        if opened is None:
            raise UnknownSession(
                "no such session is open here", received=session, action="ask the server's operator for its identifier"
            )
        return opened.contract, protocol(opened.contract.protocol)

    def events(self, session: str) -> WatchedLog[Event] | None:
        """What happens in a session that is on, None where it is not."""
        found = self._opened.get(session) or self._sessions.find(session)
        return None if found is None else found.events

    @property
    def running(self) -> set[str]:
        """Identifiers of the sessions that are on."""
        return set(self._opened) | {each.contract.session for each in self._sessions.all()}

    @property
    def active(self) -> int:
        """Number of sessions that are on."""
        return len(self.running)

    def drain(self) -> None:
        """Takes no new session and stops those that are on."""
        self._sessions.drain()
        for opened in list(self._opened.values()):
            opened.worker.stop(0.0)
            opened.events.close()

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
        own = party.membership(definition.helper, contract.terms)
        party.config.policy.review(contract, own, (peer.party,), active=self.active)
        if not set(contract.egress) <= set(definition.egress):
            raise PolicyRefusal(
                "the contract lets more cross than its protocol needs",
                expected=", ".join(definition.egress),
                received=", ".join(contract.egress),
                action="leave the others out of the contract",
            )
        party.require_room(contract, own, peer, definition)
        (session,) = self._set_up(contract, definition, own, [peer])
        party.store.save(stored(contract, own, peer))
        return session

    def _admit(self, opened: OpenedSession, peer: Membership) -> HostedSession:
        """Lets an asker join a session that is open."""
        party, contract = self._party, opened.contract
        party.config.policy.review(contract, opened.place.own, (peer.party,), active=0)
        seat = party.seat(opened.place, peer, apart=True)
        kept = party.store.find(contract.session) or stored(contract, opened.place.own)
        others = [each for each in kept.peers if each["party"] != peer.party]
        # Before the role counts on it: it may begin with this one.
        party.store.save(replace(kept, peers=(*others, peer.model_dump(mode="json"))))
        try:
            opened.worker.call(lambda: opened.role.admit(seat))
        except ComityError:
            party.store.save(kept)
            raise
        session = HostedSession(seat, opened.role, opened.worker, opened.events)
        self._sessions.add(session)
        return session

    def _set_up(
        self, contract: Contract, definition: ProtocolDefinition, own: Membership, peers: Sequence[Membership]
    ) -> list[HostedSession]:
        """Seats this party, and has its role go on from what is kept."""
        events: WatchedLog[Event] = WatchedLog()

        def observe(event: Event) -> None:
            log_event(contract.session, event)
            events.append(event)

        place = self._party.place(contract, own, observe, peers)
        seats = [self._party.seat(place, peer, apart=definition.many) for peer in peers]
        observe(definition.started(contract, definition.helper, [peer.party for peer in peers]))
        for record in place.journal.records():
            if record.kind == "finished":
                events.append(Event("round-finished", record.round, record.fields))
        role: Any = definition.help(place, seats)
        name = f"session-{contract.session}"
        worker = SessionWorker(role, name, role.wakes_in) if definition.many else SessionWorker(role, name)
        hosted = [HostedSession(seat, role, worker, events) for seat in seats]
        for session in hosted:
            self._sessions.add(session)
        if definition.many:
            self._opened[contract.session] = OpenedSession(place, role, worker, events)
        return hosted
