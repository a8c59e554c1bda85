"""Who works on the sessions in which a node helps: a role each, and what drives it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from comity.contract import Contract, Membership
from comity.errors import ComityError
from comity.node.logs import log_event
from comity.node.party import LocalParty
from comity.node.sessions.ending import SessionEnds
from comity.node.sessions.failures import failure
from comity.node.sessions.joined import UntilOver
from comity.protocol.definition import ProtocolDefinition
from comity.session import log_context
from comity.session.events import Event, finished_rounds
from comity.session.replayable_stream import ReplayableStream
from comity.session.session_registry import ActiveSession, SessionRegistry
from comity.session.worker import SessionWorker, Steppable, Worker


class SessionWork:
    """Starts work on sessions.

    Args:
        party: This party.
        sessions: The active ones.
        ends: Where they end.
        work: What drives the role of a session with one initiator; a thread of its own if nothing is said.
    """

    def __init__(
        self,
        party: LocalParty,
        sessions: SessionRegistry,
        ends: SessionEnds,
        work: Callable[[Steppable, str], Worker] | None = None,
    ) -> None:
        self._party = party
        self._sessions = sessions
        self._ends = ends
        self._work = work or self._in_a_thread
        # What is opened is there before its worker can end it.
        self._opening = threading.Lock()

    def begin(
        self,
        contract: Contract,
        definition: ProtocolDefinition,
        own: Membership,
        peers: Sequence[Membership],
        events: ReplayableStream[Event] | None = None,
    ) -> ActiveSession:
        """Has the role of a session go on from what is kept, and starts work on it.

        Args:
            contract: What was agreed.
            definition: Its protocol.
            own: This party's part in it.
            peers: The parts of those who are in it so far.
            events: Its observers; none if left out.

        Raises:
            StateInUse: Another process works on it.
            ComityError: What is kept cannot be read, or the session does not fit this party any more.
        """
        self._party.enter(contract.session, lambda: self.lose(contract.session))
        try:
            return self._begin(contract, definition, own, peers, events or ReplayableStream[Event]())
        except BaseException as error:
            self._drop_new(contract.session, error)
            self._party.leave(contract.session)
            raise

    def _drop_new(self, session: str, error: BaseException) -> None:
        """Drops what a session left that did not begin: a peer can have its role refuse as often as it likes."""
        if self._party.store.find(session) is None:
            self._party.watchers.ended(session, "failed", failure(error) if isinstance(error, ComityError) else {})
            log_context.end(session)
            self._party.store.forget(session)
            self._party.blobs.drop(session)

    def _in_a_thread(self, role: Steppable, name: str) -> SessionWorker:
        return SessionWorker(role, name, limits=self._party.config.limits)

    def lose(self, session: str) -> None:
        """Stops to work on a session that another process has taken over; it goes on there."""
        active = self._sessions.find(session)
        if active is not None:
            self._sessions.remove(session)
            active.events.append(Event("session-stopped", 0, {"what": "another process works on it"}))
            active.events.close()

    def _begin(
        self,
        contract: Contract,
        definition: ProtocolDefinition,
        own: Membership,
        peers: Sequence[Membership],
        events: ReplayableStream[Event],
    ) -> ActiveSession:
        def observe(event: Event) -> None:
            log_event(contract.session, event)
            events.append(event)

        place = self._party.session_context(contract, own, observe, peers)
        contexts = [self._party.peer_context(place, peer, apart=definition.topology.is_joined) for peer in peers]
        observe(definition.started(contract, definition.acceptor, [peer.party for peer in peers]))
        for event in finished_rounds(place.journal.records()):
            events.append(event)
        role: Any = definition.load().acceptor(place, contexts)
        with self._opening:
            worker: Worker
            if definition.topology.is_joined:
                work = UntilOver(role, lambda: self._conclude(contract.session))
                worker = SessionWorker(work, contract.session, work.wakes_in, limits=self._party.config.limits)
            else:
                worker = self._work(role, contract.session)
            session = ActiveSession(
                place,
                role,
                worker,
                events,
                {context.peer.party: context for context in contexts},
                memory=self._party.memory_space(contract),
            )
            self._sessions.begin(session)
        return session

    def _conclude(self, session: str) -> None:
        """Ends a session that many joined; called in the thread that works on it."""
        with self._opening:
            active = self._sessions.find(session)
        if active is None:
            return
        error = active.role.failure
        if error is None:
            self._ends.finish(active.contract, active.events.append, outcome=active.role.outcome())
        else:
            self._ends.fail(session, error, active.events.append)
        # Not before: a request in between would find a session that is recorded as active and is not.
        self._sessions.remove(session)
        active.events.close()
