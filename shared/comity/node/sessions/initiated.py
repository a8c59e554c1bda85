"""The sessions in which a node asks, each in a thread of its own."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from comity import interruption
from comity.contract import Contract, Membership
from comity.errors import ComityError, InvalidValue, NodeDraining, SessionFailed, StateInUse, UnknownSession
from comity.node.config import NodeConfig
from comity.node.logs import log_event
from comity.node.party import LocalParty
from comity.node.sessions.agreement import Negotiation
from comity.node.sessions.ending import SessionEnds, own_wish, waited_too_long
from comity.node.sessions.failures import failure
from comity.node.sessions.initiator import PASSING, is_offline, require_same, run_session, stored
from comity.node.sessions.kept import stored_contract
from comity.protocol.definition import ProtocolDefinition
from comity.session.events import Event
from comity.session.replayable_stream import ReplayableStream
from comity.session.waiting import PEER_AWAY, Waits, began, overdue
from comity.store.store import StoredSession
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import FAREWELL, RetryPolicy
from comity.transport.sessions import Ending, end

log = structlog.get_logger()

_STOP_S = 30.0
"""How long a cancelled session is waited for, in seconds: its unit of work is finished first."""


@dataclass(eq=False)
class InitiatedSession:
    """A session on its way.

    Attributes:
        contract: What was agreed, or is proposed.
        definition: Its protocol.
        waits: What it waits for.
        events: What happened since the node started.
        connections: The lines to the acceptors, while there are any.
        cancelled: Set when the operator does not want it any more.
        thread: What drives it.
    """

    contract: Contract
    definition: ProtocolDefinition
    waits: Waits
    events: ReplayableStream[Event]
    connections: list[PeerConnection] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether it is active."""
        return self.thread is not None and self.thread.is_alive()

    def observe(self, event: Event) -> None:
        """Takes note of what happens."""
        log_event(self.contract.session, event)
        self.events.append(event)

    def require_wanted(self) -> None:
        """Whether its work is to go on; see `interruption.point`."""
        if self.cancelled.is_set():
            raise interruption.Interrupted

    def pause(self, seconds: float) -> None:
        """Waits; raises where the operator does not want the session any more.

        Raises:
            SessionCancelled: That is so.
        """
        if self.cancelled.wait(seconds):
            raise own_wish()


class InitiatedSessions:
    """The sessions in which a node asks: who works on which. The sessions themselves are in the store.

    Args:
        party: This party.
        config: Its configuration: whom it asks, where, and how patiently.
    """

    def __init__(self, party: LocalParty, config: NodeConfig) -> None:
        self._party = party
        self._store = party.store
        self._config = config
        self._ends = SessionEnds(party)
        self._lock = threading.Lock()
        self._sessions: dict[str, InitiatedSession] = {}

    def restore(self, role: str) -> None:
        """Takes up the sessions that were on when the node stopped."""
        for kept in self._store.sessions():
            if kept.is_on and kept.own["role"] == role and not kept.is_helped:
                try:
                    self._restore(kept)
                except Exception as error:
                    # The others go on, whatever a protocol's package does.
                    log.exception("session-not-resumed", session=kept.session, error=str(error))

    def _restore(self, kept: StoredSession) -> None:
        contract, definition = stored_contract(kept)
        session = self._session(contract, definition)
        if is_offline(kept):
            for waiting in kept.waits:
                session.observe(began(waiting))
            session.observe(Event("session-stopped", 0, failure(_offline(kept.session))))
            session.events.close()
            self._sessions[kept.session] = session
            return
        try:
            self._start(session)
            log.info("session-resumed", session=kept.session)
        except StateInUse as error:
            log.warning("session-not-resumed", session=kept.session, error=str(error))

    def start(self, contract: Contract, definition: ProtocolDefinition) -> None:
        """Starts a session; once, however often it is asked for while it is on.

        Raises:
            InvalidValue: An acceptor is no configured peer, or its identifier is taken.
        """
        for acceptor in contract.acceptors:
            self._address(acceptor)
        with self._lock:
            kept = self._store.find(contract.session)
            if kept is not None:
                require_same(kept, contract)
                return
            self._store.save(stored(contract, self._party.membership(definition.initiator, contract)))
        self._start(self._session(contract, definition))

    def find(self, session: str) -> InitiatedSession | None:
        """A session that was on at some time since the node started."""
        return self._sessions.get(session)

    def running(self) -> set[str]:
        """Identifiers of the active sessions."""
        return {name for name, session in self._sessions.items() if session.running}

    def resume(self, session: str) -> None:
        """Goes on with a session that stopped because the acceptor, or the disk, was away.

        Raises:
            InvalidValue: There is nothing to go on with.
        """
        with self._lock:
            kept = self._store.find(session)
            found = self._sessions.get(session)
            if kept is None or not kept.is_on or (found is not None and found.running):
                state = "no such session" if kept is None else "running" if kept.state == "active" else kept.state
                raise InvalidValue(
                    f"session {session} cannot be resumed",
                    expected="one that stopped",
                    received=state,
                    action="comity sessions lists them",
                )
            if is_offline(kept):
                raise _offline(session)
            log.info("session-resumed", session=session)
            self._start(self._session(*stored_contract(kept)))

    def cancel(self, session: str) -> bool:
        """Ends a session before its time; returns whether the acceptor was told.

        Raises:
            InvalidValue: It is not on any more.
        """
        return self._give_up(session, own_wish())

    def expire(self, now: datetime) -> None:
        """Ends what has waited longer than the policy lets it."""
        for name in list(self._sessions):
            kept = self._store.find(name)
            waited = None if kept is None else overdue(kept, self._config.policy.max_wait_s, now)
            if waited is not None:
                with contextlib.suppress(InvalidValue):
                    self._give_up(name, waited_too_long(waited, SessionFailed))

    def _give_up(self, session: str, error: ComityError) -> bool:
        """Ends a session early; returns whether those who help in it were told."""
        found = self._sessions.get(session)
        if not self._is_on(session):
            raise not_on(session, self._state(session))
        if found is None:
            # Its protocol's package does not work any more: nobody can go on with it, or say what was agreed.
            self._party.enter(session, lambda: None)
            return self._ends.fail(session, error, functools.partial(log_event, session), tell=_not_told)
        found.cancelled.set()
        found.waits.give_up(error)
        for connection in found.connections:
            # Whatever waits for an acceptor ends; a role ends between two steps.
            connection.close()
        if found.thread is not None:
            found.thread.join(_STOP_S)
        if not self._is_on(session):
            raise not_on(session, self._state(session))
        # Observers from now on find how it ended in the store.
        told = self._ends.fail(
            session, error, found.observe, tell=lambda ending: self._farewell(found.contract, ending)
        )
        found.events.close()
        return told

    def _is_on(self, session: str) -> bool:
        kept = self._store.find(session)
        return kept is not None and kept.is_on

    def _state(self, session: str) -> str:
        kept = self._store.find(session)
        return "unknown" if kept is None else kept.state

    def _farewell(self, contract: Contract, ending: Ending) -> bool:
        """Tells those who know of a session how it ended; whether all of them heard it."""
        told = True
        for acceptor in contract.acceptors:
            try:
                with self.connection_to(acceptor, FAREWELL) as connection:
                    connection.enter(contract.session, contract.hash)
                    end(connection, ending)
            except ComityError as error:
                told = False
                log.info("peer-not-told", session=contract.session, peer=acceptor, error=str(error))
        return told

    def connection_to(self, acceptor: str, retry: RetryPolicy | None = None) -> PeerConnection:
        """A line to a configured peer.

        Raises:
            InvalidValue: It is none.
        """
        return PeerConnection(self._config.identity, acceptor, self._address(acceptor), retry or self._config.retry)

    def _address(self, acceptor: str) -> str:
        if acceptor not in self._config.peers:
            raise InvalidValue(
                "session.acceptors names an unknown peer",
                expected=", ".join(self._config.peers) or "none",
                received=acceptor,
                action=f"configure [peers.{acceptor}] with its address",
            )
        return self._config.peers[acceptor].address

    def _session(self, contract: Contract, definition: ProtocolDefinition) -> InitiatedSession:
        events: ReplayableStream[Event] = ReplayableStream()

        def observe(event: Event) -> None:
            log_event(contract.session, event)
            events.append(event)

        return InitiatedSession(contract, definition, Waits(self._store, contract.session, observe), events)

    def _start(self, session: InitiatedSession) -> None:
        """Starts work on a session.

        Raises:
            StateInUse: Another process does.
        """
        name = session.contract.session
        self._party.enter(name, lambda: _lose(session))
        self._sessions[name] = session
        session.thread = threading.Thread(target=self._work, args=(session,), name=f"session-{name}", daemon=True)
        session.thread.start()

    def _work(self, session: InitiatedSession) -> None:
        contract = session.contract
        # Who was away when the node stopped need not be now.
        session.waits.clear(PEER_AWAY)
        try:
            with contextlib.ExitStack() as stack, interruption.checked(session.require_wanted):
                session.connections = [
                    stack.enter_context(self.connection_to(acceptor)) for acceptor in contract.acceptors
                ]
                for connection in session.connections:
                    connection.presence.on_change = functools.partial(_observe_absence, session, connection)
                own = self._own(contract.session)
                negotiation = Negotiation(contract, session.definition, self._party, own, session.waits, session.pause)
                outcome = run_session(negotiation, session.connections, session.observe)
                self._ends.finish(
                    contract, session.observe, outcome=outcome, tell=functools.partial(_tell, session.connections)
                )
        except interruption.Interrupted:
            log.info("session-interrupted", session=contract.session)
        except Exception as error:  # noqa: BLE001 - the operator is told, whatever it is
            self._fail(session, error)
        finally:
            self._party.leave(contract.session)
        if not session.cancelled.is_set():
            session.events.close()

    def _own(self, session: str) -> Membership:
        """This party's part as it was entered: data may be others since, and what is released says what stands behind it."""
        kept = self._store.find(session)
        if kept is None:
            raise UnknownSession("the session is not kept here", expected="one that was entered", received=session)
        return Membership.model_validate(kept.own)

    def _fail(self, session: InitiatedSession, error: Exception) -> None:
        name = session.contract.session
        if session.cancelled.is_set():
            # The caller that gives it up ends it.
            return
        if isinstance(error, PASSING) or not isinstance(error, ComityError):
            # Not the session's fault: it goes on when its operator says so, or when the node is started again.
            if not isinstance(error, ComityError):
                log.error("session-broken", session=name, exc_info=error)
            session.waits.clear()
            why = failure(error) if isinstance(error, ComityError) else {"what": f"{type(error).__name__}: {error}"}
            session.observe(Event("session-stopped", 0, why))
        else:
            # Or it would count as one that goes on, against what the acceptors' policies allow at a time.
            self._ends.fail(name, error, session.observe, tell=lambda ending: self._farewell(session.contract, ending))


def _offline(session: str) -> InvalidValue:
    """The error for a caller who expects the daemon to go on with a session whose rounds are exchanged offline."""
    return InvalidValue(
        f"the rounds of session {session} are exchanged offline",
        expected="comity offline",
        received="the daemon",
        action="stop the node; comity offline export then goes on with it",
    )


def not_on(session: str, state: str) -> InvalidValue:
    """The error for a caller who wants to end a session that is not on."""
    return InvalidValue(
        f"session {session} cannot be cancelled",
        expected="an active one",
        received=state,
        action="comity sessions lists them",
    )


def _tell(connections: Sequence[PeerConnection], ending: Ending) -> bool:
    """Tells the acceptors over the lines that there are, or fails."""
    for connection in connections:
        end(connection, ending)
    return True


def _lose(session: InitiatedSession) -> None:
    """Stops to work on a session that another process has taken over; it goes on there."""
    for connection in session.connections:
        # As if the peers were away: the session stays as it is.
        connection.close()
    session.waits.give_up(
        NodeDraining("another process works on the session", action="follow it with comity watch there")
    )


def _observe_absence(session: InitiatedSession, connection: PeerConnection, error: ComityError | None) -> None:
    """Has the session wait for an acceptor that does not answer, until it does again."""
    if error is None:
        session.waits.end(PEER_AWAY, connection.party)
    else:
        session.waits.begin(PEER_AWAY, connection.party, wait_s=connection.retry.retry_s, why=str(error))


def _not_told(ending: Ending) -> bool:
    """For a session whose acceptors nobody can tell."""
    del ending
    return False
