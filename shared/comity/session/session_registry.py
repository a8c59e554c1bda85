"""Who works on what in a node that helps: the sessions themselves are in the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import Contract
from comity.errors import (
    ComityError,
    ContractMismatch,
    DataChanged,
    NodeDraining,
    SessionCancelled,
    SessionFailed,
    StorageError,
    UnknownSession,
    tree,
)
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event
from comity.session.gate import EgressGate
from comity.session.policy import Reserved
from comity.session.replayable_stream import ReplayableStream
from comity.session.waiting import DATA
from comity.session.worker import Worker
from comity.store.journal import Journal
from comity.store.store import Store

Result = TypeVar("Result")

_CONFIDENTIAL = {each.reason() for each in tree() if issubclass(each, StorageError)}
"""Reasons for a session's end of which a peer is told no more: where this node keeps what is its operator's to know."""

_STOP_S = 3.0
"""How long the threads of sessions that stop are waited for, in seconds."""


@dataclass(frozen=True)
class AcceptedSession:
    """A session at the party that helps, as a call of one of its peers has it.

    Where many have joined a session, each has a context of its own; role, worker and events are the same for all.

    Attributes:
        context: This party's place in it, opposite that peer.
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
        """What leaves to the peer.

        Raises:
            NodeDraining: The session was ended, or its node stops: nothing leaves any more.
        """
        self.require_running()
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

    @contextmanager
    def told_of_its_end(self) -> Iterator[None]:
        """Has a call that comes to grief because the session ends meanwhile say so, and be made again.

        Its ledger takes nothing more then, and its blobs are gone. Whoever calls again hears how it ended.

        Raises:
            NodeDraining: That is so.
        """
        try:
            yield
        except (UnknownSession, StorageError):
            self.require_running()
            raise


@dataclass
class ActiveSession:
    """An active session.

    Attributes:
        place: This party's place in it, whoever is opposite.
        role: The protocol's helping role.
        worker: Its thread.
        events: What happened since the node started.
        contexts: This party's places opposite the peers, by their names; also those of peers who have left.
        left: Peers who have left, and may come back.
        memory: What its models may take in memory, in bytes.
        heard: When one of its peers last called, on the monotonic clock.
        stopping: Set when it is ended or its node stops.
        closing: Closed, with the reason, at the same time.
    """

    place: SessionContext
    role: Any
    worker: Worker
    events: ReplayableStream[Event] = field(default_factory=ReplayableStream)
    contexts: dict[str, PeerContext] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    memory: int = 0
    heard: float = field(default_factory=time.monotonic)
    stopping: threading.Event = field(default_factory=threading.Event)
    closing: ReplayableStream[None] = field(default_factory=ReplayableStream)

    @property
    def contract(self) -> Contract:
        """What was agreed."""
        return self.place.contract

    def of(self, party: str) -> AcceptedSession | None:
        """The session as one of its peers has it; None for whoever is not in it."""
        context = None if party in self.left else self.contexts.get(party)
        if context is None:
            return None
        return AcceptedSession(context, self.role, self.worker, self.events, self.stopping, self.closing)

    @property
    def silent_s(self) -> float:
        """How long none of its peers has called, in seconds; 0 while one follows something of it."""
        return 0.0 if self.closing.is_followed else time.monotonic() - self.heard

    def begin_stop(self) -> None:
        """Has its thread end, without waiting for it."""
        self.stopping.set()
        self.worker.close()
        self.closing.close(_stopping())
        self.closing.close(_stopping())

    def stop(self, patience_s: float = _STOP_S) -> None:
        """Ends its thread after the active unit of work, waiting a while for it; what is done is kept."""
        self.begin_stop()
        self.worker.stop(patience_s)


class SessionRegistry:
    """The active sessions, by identifier; what a call belongs to is found here.

    Args:
        store: Where all of them are kept; None where none are.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._active: dict[str, ActiveSession] = {}
        self._draining = False

    def __len__(self) -> int:
        """Number of sessions."""
        return len(self._active)

    @property
    def names(self) -> set[str]:
        """Identifiers of the sessions."""
        with self._lock:
            return set(self._active)

    def reserved(self, party: str = "") -> Reserved:
        """What the sessions' models may take in memory, of all and of those that a party asked for."""
        with self._lock:
            active = list(self._active.values())
        theirs = sum(each.memory for each in active if party and each.contract.initiator == party)
        return Reserved(sum(each.memory for each in active), theirs)

    def silent(self) -> list[str]:
        """The sessions that one party asked for and whose initiator has not called for longer than the contract says."""
        with self._lock:
            return [
                name
                for name, session in self._active.items()
                if not session.contract.is_open
                and session.contract.max_silence_s is not None
                and session.silent_s > session.contract.max_silence_s
            ]

    def failed(self, since_s: float = 0.0) -> dict[str, ComityError]:
        """Why sessions that one party asked for can do nothing more, of those of which that is so for so many seconds.

        Their initiators are told, and end them. A session that many joined ends by itself.
        """
        late = time.monotonic() - since_s
        with self._lock:
            found = {name: each.worker.failure for name, each in self._active.items() if not each.contract.is_open}
        return {name: each.error for name, each in found.items() if each is not None and each.at <= late}

    def drop_half_uploads(self, after_s: float) -> None:
        """Drops what was half uploaded, in any session, and that nobody has gone on with for so many seconds."""
        with self._lock:
            active = list(self._active.values())
        for session in active:
            for context in list(session.contexts.values()):
                context.blobs.drop_half_uploads(after_s)

    def queues(self) -> dict[str, int]:
        """Requests that wait for their turn, by session."""
        with self._lock:
            return {name: session.worker.queued for name, session in self._active.items()}

    def find(self, session: str) -> ActiveSession | None:
        """The session of an identifier."""
        return self._active.get(session)

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

    def begin(self, session: ActiveSession) -> None:
        """Adds a session that is active from now on."""
        with self._lock:
            self._active[session.contract.session] = session

    def add(self, session: AcceptedSession) -> None:
        """Adds a session as one peer has it; to those that others have joined, where there are any."""
        with self._lock:
            found = self._active.setdefault(
                session.contract.session,
                ActiveSession(
                    session.context.place,
                    session.role,
                    session.worker,
                    session.events,
                    stopping=session.stopping,
                    closing=session.closing,
                ),
            )
            found.contexts[session.context.peer.party] = session.context

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
            SessionFailed: It could not go on here, and is over.
            ContractMismatch: The call quotes another contract.
            NodeDraining: It is being stopped.
        """
        active = self.find(session)
        found = None if active is None else active.of(party)
        if active is None:
            self._require_not_ended(session, party)
        # Whether the session exists is confidential to its parties.
        if active is None or found is None or protocol not in {None, found.contract.protocol}:
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
        # What it keeps may be gone already.
        found.require_running()
        active.heard = time.monotonic()
        return found

    def _require_not_ended(self, session: str, party: str) -> None:
        kept = self._store.find(session) if self._store is not None and session else None
        if kept is None or party not in {each["party"] for each in kept.peers}:
            return
        if any(each.reason == DATA.name for each in kept.waits):
            raise DataChanged(
                f"the session waits for the data of {kept.own['party']}, which are others than was agreed on",
                action="it goes on when they are back",
            )
        if kept.state == "cancelled":
            raise SessionCancelled(
                "the session was cancelled by the other party's operator", action="ask them why, and begin a new one"
            )
        if kept.state == "failed":
            what = str(kept.result.get("what", ""))
            if str(kept.result.get("reason", "")) in _CONFIDENTIAL:
                what = ""
            raise SessionFailed(
                what or "the session could not go on",
                action=f"begin a new session; the operator of {kept.own['party']} finds more there",
            )

    def leave(self, session: str, party: str) -> None:
        """Goes on without a peer, who may come back."""
        found = self.find(session)
        if found is not None:
            found.left.add(party)

    def remove(self, session: str) -> None:
        """Forgets a session and stops its thread; its events stay open for what is still to be said."""
        with self._lock:
            found = self._active.pop(session, None)
        if found is not None:
            found.stop()

    def drain(self) -> None:
        """Takes no new session and stops those that are active."""
        self._draining = True
        deadline = time.monotonic() + _STOP_S
        with self._lock:
            active = list(self._active.values())
        for session in active:
            session.begin_stop()
        for session in active:
            session.stop(max(0.0, deadline - time.monotonic()))
            session.events.close()


def _stopping() -> NodeDraining:
    return NodeDraining("the session is being stopped", action="try again when the node is back")
