"""A session, from the side of the party that helps: deciding on proposals, and going on after a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog

from comity.contract import Contract, Membership
from comity.errors import (
    ComityError,
    ContractMismatch,
    InvalidValue,
    StorageError,
    UnknownSession,
)
from comity.node.logs import log_event
from comity.node.party import LocalParty
from comity.node.sessions.budget import require_affordable
from comity.node.sessions.failures import failure
from comity.node.sessions.initiator import stored, stored_contract
from comity.node.sessions.proposals import Proposal, read_proposal, require_admissible
from comity.node.sessions.result import summarize
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.protocol.roles import JoinedAcceptor
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event
from comity.session.gate import EgressGate
from comity.session.replayable_stream import ReplayableStream
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.session.worker import SessionWorker, Steppable, Worker
from comity.transport.sessions import Ending
from comity.wire.v1 import sessions_pb2

log = structlog.get_logger()


@dataclass(frozen=True)
class OpenedSession:
    """A session that many may join.

    Attributes:
        place: This party's place in it.
        role: The protocol's helping role.
        worker: Its thread.
        events: What happened since the node started.
        contexts: This party's contexts opposite those who joined, also those who have left.
    """

    place: SessionContext
    role: JoinedAcceptor
    worker: Worker
    events: ReplayableStream[Event]
    contexts: dict[str, PeerContext]

    @property
    def contract(self) -> Contract:
        """What those who join agree to."""
        return self.place.contract


class _Ending:
    """A helping role that many join, at work; says when it is over.

    Args:
        role: The role.
        conclude: Called once, from the thread that works, when nothing is left to do.
    """

    def __init__(self, role: JoinedAcceptor, conclude: Callable[[], None]) -> None:
        self._role = role
        self._conclude = conclude
        self._is_concluded = False

    def advance(self) -> bool:
        """See `Steppable.advance`."""
        if self._role.advance():
            return True
        # What could not be kept may be as it should after a restart.
        if self._role.over and not self._is_concluded and not isinstance(self._role.failure, StorageError):
            self._is_concluded = True
            self._conclude()
        return False

    def fail(self, error: ComityError) -> None:
        """See `Steppable.fail`."""
        self._role.fail(error)

    def wakes_in(self) -> float | None:
        """See `JoinedAcceptor.wakes_in`."""
        return None if self._is_concluded or isinstance(self._role.failure, StorageError) else self._role.wakes_in()


class Acceptor:
    """Decides on proposals and sets up the sessions that it accepts.

    Args:
        party: This party.
        role: The role in which it helps.
        sessions: Where accepted sessions go.
        work: What drives the role of a session with one initiator; a thread of its own if nothing is said.
    """

    def __init__(
        self,
        party: LocalParty,
        role: str,
        sessions: SessionRegistry,
        work: Callable[[Steppable, str], Worker] = SessionWorker,
    ) -> None:
        self._party = party
        self._role = role
        self._sessions = sessions
        self._work = work
        self._opened: dict[str, OpenedSession] = {}
        self._deciding = threading.Lock()
        # What is opened is there before its worker can end it.
        self._opening = threading.Lock()

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
                if definition.acceptor != self._role:
                    continue
                own = Membership.model_validate(kept.own)
                self._set_up(contract, definition, own, peers)
                log.info("session-resumed", session=kept.session)
            except ComityError as error:
                # The others go on; its initiator is told that there is no such session.
                log.exception("session-not-resumed", session=kept.session, error=str(error))

    def accept(self, caller: str, proposal: sessions_pb2.Proposal) -> AcceptedSession:
        """Agrees to a proposal; to the same one again with the same session.

        Args:
            caller: Party that proposes, by its certificate.
            proposal: The contract and the caller's part in it.

        Raises:
            RefusedError: The contract is refused, with the reason.
            MalformedMessage: The proposal cannot be read.
            ReceiptInvalid: It is not signed with the key that the caller is known by.
        """
        read = read_proposal(self._party, self._role, caller, proposal)
        contract, definition, peer = read.contract, read.definition, read.peer
        with self._deciding:
            running = self._sessions.find(contract.session, peer.party)
            if running is not None and (running.contract.hash, running.context.peer) == (contract.hash, peer):
                return running
            if (opened := self._opened.get(contract.session)) is not None and opened.contract.hash == contract.hash:
                return self._admit(opened, peer)
            if definition.topology.is_joined and opened is None:
                raise _not_open(contract.session)
            self._require_new(contract.session)
            return self._open(read)

    def review(self, caller: str, draft: sessions_pb2.DraftRequest) -> sessions_pb2.DraftReply:
        """Whether it would agree to a contract; nothing of it is kept.

        Args:
            caller: Party that asks, by its certificate.
            draft: The contract and the caller's part in it.

        Raises:
            RefusedError: It would refuse it, with the reason.
            MalformedMessage: The draft cannot be read.
        """
        read = read_proposal(self._party, self._role, caller, draft)
        contract, definition, peer = read.contract, read.definition, read.peer
        opened = self._opened.get(contract.session)
        running = self._sessions.find(contract.session, peer.party)
        if definition.topology.is_joined and opened is None:
            raise _not_open(contract.session)
        if opened is not None and opened.contract.hash == contract.hash:
            self._party.config.policy.review(contract, opened.place.own, (peer.party,), active=0)
        elif running is None or running.contract.hash != contract.hash:
            self._require_new(contract.session)
            own = self._party.membership(definition.acceptor, contract)
            require_admissible(self._party, read, own, active=self.active)
            require_affordable(self._party.store, self._party.config.policy, contract, own, [peer])
        return sessions_pb2.DraftReply(contract_hash=contract.hash)

    def _require_new(self, session: str) -> None:
        """Checks that a session's identifier is not taken.

        Raises:
            ContractMismatch: It is.
        """
        if self._party.store.find(session) is not None:
            raise ContractMismatch(
                "the session exists already, with another contract or ended",
                expected="a new id",
                received=session,
                action="give the new session another id",
            )

    def finish(self, session: AcceptedSession, ending: Ending) -> None:
        """Ends a session that its initiator is done with, and drops what it kept but the ledger.

        One that many joined goes on without that initiator, and ends when its role is over.
        """
        name, initiator = session.contract.session, session.context.peer.party
        opened = self._opened.get(name)
        if opened is not None:
            opened.worker.call(lambda: opened.role.leave(initiator))
        self._sessions.remove(session, stop=opened is None)
        log.info("session-left", session=name, peer=initiator, ending=ending)
        if opened is None:
            self._end(name, ending)

    def _conclude(self, session: str) -> None:
        """Ends a session that many joined, and keeps what it came to; called in the thread that works on it."""
        with self._opening:
            opened = self._opened.get(session)
        if opened is None:
            return
        error = opened.role.failure
        if error is None:
            began = datetime.fromisoformat(self._begun(session))
            wall_s = (datetime.now(UTC) - began).total_seconds()
            outcome = opened.role.outcome()
            result = summarize(opened.contract, outcome, self._party.store, wall_s).to_json()
            self._party.keep_result(session, outcome, result)
            last = protocol(opened.contract.protocol).finished(opened.contract, result)
        else:
            result = failure(error)
        self._party.end(session, "finished" if error is None else "failed", result)
        if error is None:
            opened.place.observe(last)
        # Not before: whoever asks meanwhile would find a session that is on, and that nobody works on.
        self._opened.pop(session, None)
        for each in self._sessions.all(session):
            # Those who never came for what is theirs.
            self._sessions.remove(each)
        opened.worker.stop()
        opened.events.close()
        log.info("session-ended", session=session, ending="finished" if error is None else "failed")

    def _begun(self, session: str) -> str:
        kept = self._party.store.find(session)
        return kept.begun if kept is not None else ""

    def cancel(self, session: str) -> bool:
        """Ends a session before its time; its initiators are told at their next call. Returns whether it is on here."""
        opened = self._opened.pop(session, None)
        hosted = self._sessions.all(session)
        for each in hosted:
            self._sessions.cancel(session, each.context.peer.party)
            self._sessions.remove(each)
        if opened is not None:
            opened.worker.stop()
            opened.events.close()
        if opened is not None or hosted:
            self._end(session, "cancelled")
        return opened is not None or bool(hosted)

    def _end(self, session: str, ending: Ending) -> None:
        self._party.end(session, ending)
        log.info("session-ended", session=session, ending=ending)

    def open(self, contract: Contract, definition: ProtocolDefinition) -> None:
        """Opens a session, which those whom the policy admits may join.

        Raises:
            InvalidValue: Its identifier is taken, or it names another acceptor.
            RefusedError: This party's own policy, model or data refuse it.
        """
        if contract.acceptors != (self._party.name,):
            raise InvalidValue(
                "session.acceptors names somebody else",
                expected=self._party.name,
                received=", ".join(contract.acceptors),
                action="open the session at the node that it names, or name this one",
            )
        with self._deciding:
            if self._party.store.find(contract.session) is not None:
                raise InvalidValue(
                    "the session's id is taken",
                    expected="a new id",
                    received=contract.session,
                    action="leave out session.id, or give another",
                )
            own = self._party.membership(definition.acceptor, contract)
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
            raise _not_open(session)
        return opened.contract, protocol(opened.contract.protocol)

    def gate(self, contract: Contract, party: str) -> EgressGate:
        """What may leave to a party with which there is no session yet."""
        return self._party.gate(contract, party)

    def events(self, session: str) -> ReplayableStream[Event] | None:
        """What happens in a session that is on, None where it is not."""
        found = self._opened.get(session) or self._sessions.find(session)
        return None if found is None else found.events

    @property
    def running(self) -> set[str]:
        """Identifiers of the active sessions."""
        return set(self._opened) | {each.contract.session for each in self._sessions.all()}

    @property
    def active(self) -> int:
        """Number of active sessions."""
        return len(self.running)

    def drain(self) -> None:
        """Takes no new session and stops those that are active."""
        self._sessions.drain()
        for opened in list(self._opened.values()):
            opened.worker.stop(0.0)
            opened.events.close()

    def _open(self, proposal: Proposal) -> AcceptedSession:
        party, contract, definition = self._party, proposal.contract, proposal.definition
        own = party.membership(definition.acceptor, contract)
        require_admissible(party, proposal, own, active=self.active)
        (session,) = self._set_up(contract, definition, own, [proposal.peer])
        party.store.save(stored(contract, own, proposal.peer))
        return session

    def _admit(self, opened: OpenedSession, peer: Membership) -> AcceptedSession:
        """Lets an initiator join a session that is open."""
        party, contract = self._party, opened.contract
        party.config.policy.review(contract, opened.place.own, (peer.party,), active=0)
        context = opened.contexts.get(peer.party)
        if context is not None and context.peer != peer:
            raise ContractMismatch(
                f"{peer.party} has joined the session already, with another part in it",
                expected=f"{context.peer.samples} samples, key {context.peer.receipt_key[:16]}…",
                received=f"{peer.samples} samples, key {peer.receipt_key[:16]}…",
                action="come back as you left",
            )
        kept = party.store.find(contract.session) or stored(contract, opened.place.own)
        if context is None:
            # Before the role counts on it: it may begin with this one.
            party.store.save(replace(kept, peers=(*kept.peers, peer.model_dump(mode="json"))))
        place = opened.place
        joined = context or party.context(place, peer, apart=True)
        try:
            opened.worker.call(lambda: opened.role.admit(joined))
        except ComityError:
            if context is None:
                place.gates.remove(joined.gate)
                party.store.save(kept)
            raise
        opened.contexts[peer.party] = joined
        session = AcceptedSession(joined, opened.role, opened.worker, opened.events)
        self._sessions.add(session)
        return session

    def _set_up(
        self, contract: Contract, definition: ProtocolDefinition, own: Membership, peers: Sequence[Membership]
    ) -> list[AcceptedSession]:
        """Seats this party, and has its role go on from what is kept."""
        events: ReplayableStream[Event] = ReplayableStream()

        def observe(event: Event) -> None:
            log_event(contract.session, event)
            events.append(event)

        place = self._party.place(contract, own, observe, peers)
        contexts = [self._party.context(place, peer, apart=definition.topology.is_joined) for peer in peers]
        observe(definition.started(contract, definition.acceptor, [peer.party for peer in peers]))
        for record in place.journal.records():
            if record.kind == "finished":
                events.append(Event("round-finished", record.round, record.fields))
        role: Any = definition.load().acceptor(place, contexts)
        name = f"session-{contract.session}"
        with self._opening:
            worker: Worker
            if definition.topology.is_joined:
                ending = _Ending(role, lambda: self._conclude(contract.session))
                worker = SessionWorker(ending, name, ending.wakes_in)
                by_party = {context.peer.party: context for context in contexts}
                self._opened[contract.session] = OpenedSession(place, role, worker, events, by_party)
            else:
                worker = self._work(role, name)
            hosted = [AcceptedSession(context, role, worker, events) for context in contexts]
            for session in hosted:
                self._sessions.add(session)
        return hosted


def _not_open(session: str) -> UnknownSession:
    return UnknownSession(
        "no such session is open here", received=session, action="ask the server's operator for its identifier"
    )
