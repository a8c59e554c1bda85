"""The sessions in which a node helps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import Contract
from comity.errors import ContractMismatch, NodeDraining, SessionCancelled, UnknownSession
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.gate import EgressGate
from comity.session.replayable_stream import ReplayableStream
from comity.session.worker import Worker
from comity.store.journal import Journal

Result = TypeVar("Result")

_STOP_S = 3.0
"""How long the threads of sessions that stop are waited for, in seconds."""


@dataclass(frozen=True)
class AcceptedSession:
    """A session at the party that helps, as one of those whom it helps has it.

    Where a session has many initiators, each has a context of its own, and role, worker and events are the same for all.

    Attributes:
        context: This party's place in it, opposite that initiator.
        role: The protocol's helping role; touched by the worker alone, unless it says otherwise.
        worker: Its thread.
        events: What happened since the node started.
        stopping: Set when the session is ended or its node stops.
        closing: Closed, with the reason, at the same time: for those who follow something of it.
    """

    context: PeerContext
    role: Any
    worker: Worker
    events: ReplayableStream[Event] = field(default_factory=ReplayableStream)
    stopping: threading.Event = field(default_factory=threading.Event)
    closing: ReplayableStream[None] = field(default_factory=ReplayableStream)

    @property
    def contract(self) -> Contract:
        """What was agreed."""
        return self.context.contract

    @property
    def blobs(self) -> SessionBlobs:
        """The session's blobs."""
        return self.context.blobs

    @property
    def gate(self) -> EgressGate:
        """What leaves to the peer."""
        return self.context.gate

    @property
    def journal(self) -> Journal:
        """What is done."""
        return self.context.journal

    def require_running(self) -> None:
        """Checks that the session goes on.

        Raises:
            NodeDraining: It was ended, or its node stops.
        """
        if self.stopping.is_set():
            raise _stopping()

    def stop(self, patience_s: float = _STOP_S) -> None:
        """Ends its thread after the unit of work that is on, waiting a while for it; what is done is kept."""
        self.begin_stop()
        self.worker.stop(patience_s)
        self.events.close()

    def begin_stop(self) -> None:
        """Has its thread end, without waiting for it."""
        self.stopping.set()
        self.worker.close()
        self.closing.close(_stopping())


class SessionRegistry:
    """The sessions of a helping node, by identifier and initiator."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[tuple[str, str], AcceptedSession] = {}
        self._cancelled: set[tuple[str, str]] = set()
        self._draining = False

    def __len__(self) -> int:
        """Number of sessions."""
        with self._lock:
            return len({session for session, _ in self._sessions})

    def all(self, session: str | None = None) -> list[AcceptedSession]:
        """Every session, oldest first; or one, as each of its initiators has it."""
        with self._lock:
            return [each for (name, _), each in self._sessions.items() if session in {None, name}]

    def find(self, session: str, initiator: str | None = None) -> AcceptedSession | None:
        """The session of an identifier, as one initiator has it; without one, as whoever came first."""
        with self._lock:
            if initiator is not None:
                return self._sessions.get((session, initiator))
            return next((each for (name, _), each in self._sessions.items() if name == session), None)

    def in_session(self, protocol: str, session: str, request: Callable[[Any], Result]) -> Result:
        """Has something done by the role of a session, between two units of its work.

        Args:
            protocol: The session's protocol.
            session: Its identifier.
            request: What is done, with the role.

        Raises:
            UnknownSession: This node helps in no such session.
            NodeDraining: It is being stopped.
        """
        found = self.find(session)
        if found is None or found.contract.protocol != protocol:
            raise UnknownSession(
                f"no such session of {protocol} here", received=session, action="comity sessions lists them"
            )
        return found.worker.call(lambda: request(found.role))

    def require_open(self) -> None:
        """Checks that new sessions are taken.

        Raises:
            NodeDraining: The node is stopping.
        """
        if self._draining:
            raise NodeDraining(
                "the node is stopping",
                expected="a running node",
                received="draining",
                action="try again when it is back",
            )

    def add(self, session: AcceptedSession) -> None:
        """Adds a session."""
        with self._lock:
            self._sessions[session.contract.session, session.context.peer.party] = session

    def get(self, session: str, party: str, contract_hash: str, protocol: str | None = None) -> AcceptedSession:
        """The session that a call belongs to.

        Args:
            session: Identifier that the call quotes.
            party: Party that calls.
            contract_hash: Hash that the call quotes.
            protocol: Protocol whose service is called; None for the services of all protocols.

        Raises:
            UnknownSession: The caller has no such session here.
            SessionCancelled: It was cancelled here.
            ContractMismatch: The call quotes another contract.
        """
        found = self.find(session, party)
        if found is None and (session, party) in self._cancelled:
            raise SessionCancelled(
                "the session was cancelled by the other party's operator", action="ask them why, and begin a new one"
            )
        # Whether the session exists is nobody's business but its parties'.
        if found is None or protocol not in {None, found.contract.protocol}:
            raise UnknownSession(
                "no such session here",
                expected=f"a session of {party}",
                received=session or "none",
                action="propose it first",
            )
        if found.contract.hash != contract_hash:
            raise ContractMismatch(
                "the call quotes another contract",
                expected=found.contract.hash,
                received=contract_hash or "none",
                action="quote the contract that was agreed on",
            )
        return found

    def remove(self, session: AcceptedSession, *, stop: bool = True) -> None:
        """Forgets a session, as its initiator has it; stops its thread, unless that goes on for others."""
        with self._lock:
            self._sessions.pop((session.contract.session, session.context.peer.party), None)
        if stop:
            session.stop()

    def cancel(self, session: str, initiator: str) -> None:
        """Has the initiator of a session told, from now on, that it was cancelled here."""
        with self._lock:
            self._cancelled.add((session, initiator))

    def drain(self) -> None:
        """Takes no new session and stops those that are active."""
        self._draining = True
        deadline = time.monotonic() + _STOP_S
        for session in self.all():
            session.begin_stop()
        for session in self.all():
            session.stop(max(0.0, deadline - time.monotonic()))


def _stopping() -> NodeDraining:
    return NodeDraining("the session is being stopped", action="try again when the node is back")
