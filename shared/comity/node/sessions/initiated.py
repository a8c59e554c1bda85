"""The sessions in which a node asks, each in a thread of its own."""

from __future__ import annotations

import contextlib
import functools
import threading
from dataclasses import dataclass, field

import structlog

from comity.contract import Contract, Json
from comity.errors import ComityError, InvalidValue, SessionCancelled
from comity.node.config import NodeConfig
from comity.node.logs import log_event
from comity.node.party import LocalParty
from comity.node.sessions.failures import failure
from comity.node.sessions.initiator import PASSING, is_offline, run_session, stored, stored_contract
from comity.node.sessions.result import SessionResult
from comity.protocol.definition import ProtocolDefinition
from comity.session.events import Event
from comity.session.outcome import Outcome
from comity.session.replayable_stream import ReplayableStream
from comity.transport.peer_connection import PeerConnection, RetryPolicy
from comity.transport.sessions import Ending, end

log = structlog.get_logger()

_FAREWELL = RetryPolicy(call_s=3.0, retry_s=0.0)
"""For telling an acceptor that a session is cancelled: it may be away, which may be why."""

_STOP_S = 30.0
"""How long a cancelled session is waited for, in seconds: its unit of work is finished first."""


@dataclass(eq=False)
class InitiatedSession:
    """A session on its way.

    Attributes:
        contract: What was agreed, or is proposed.
        definition: Its protocol.
        events: What happened since the node started.
        connections: The lines to the acceptors, while there are any.
        cancelled: Set when the operator does not want it any more.
        thread: What drives it.
    """

    contract: Contract
    definition: ProtocolDefinition
    events: ReplayableStream[Event] = field(default_factory=ReplayableStream)
    connections: list[PeerConnection] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether somebody works on it."""
        return self.thread is not None and self.thread.is_alive()

    def observe(self, event: Event) -> None:
        """Takes note of what happens."""
        log_event(self.contract.session, event)
        self.events.append(event)


class InitiatedSessions:
    """The sessions of an asking node, by identifier.

    Args:
        party: This party.
        config: Its configuration: whom it asks, where, and how patiently.
    """

    def __init__(self, party: LocalParty, config: NodeConfig) -> None:
        self._party = party
        self._config = config
        self._lock = threading.Lock()
        self._sessions: dict[str, InitiatedSession] = {}

    def restore(self, role: str) -> None:
        """Takes up the sessions that were on when the node stopped."""
        for kept in self._party.store.sessions():
            if kept.state == "active" and kept.own["role"] == role:
                contract, definition = stored_contract(kept)
                if definition.initiator != role:
                    continue
                session = InitiatedSession(contract, definition)
                if is_offline(self._party.store, kept.session):
                    session.observe(Event("session-stopped", 0, failure(_offline(kept.session))))
                    session.events.close()
                    self._sessions[kept.session] = session
                    continue
                log.info("session-resumed", session=kept.session)
                self._start(session)

    def start(self, contract: Contract, definition: ProtocolDefinition) -> None:
        """Starts a session.

        Raises:
            InvalidValue: An acceptor is no configured peer, or its identifier is taken.
        """
        for acceptor in contract.acceptors:
            self._address(acceptor)
        with self._lock:
            if self._party.store.find(contract.session) is not None:
                action = "leave out session.id, or give another"
                raise InvalidValue(
                    "the session's id is taken", expected="a new id", received=contract.session, action=action
                )
            self._party.store.save(stored(contract, self._party.membership(definition.initiator, contract)))
        self._start(InitiatedSession(contract, definition))

    def find(self, session: str) -> InitiatedSession | None:
        """A session that was on at some time since the node started."""
        return self._sessions.get(session)

    def running(self) -> set[str]:
        """Identifiers of the sessions that somebody works on."""
        return {name for name, session in self._sessions.items() if session.running}

    def resume(self, session: str) -> None:
        """Goes on with a session that stopped because the acceptor, or the disk, was away.

        Raises:
            InvalidValue: There is nothing to go on with.
        """
        with self._lock:
            kept = self._party.store.find(session)
            found = self._sessions.get(session)
            if kept is None or kept.state != "active" or (found is not None and found.running):
                state = "no such session" if kept is None else "running" if kept.state == "active" else kept.state
                raise InvalidValue(
                    f"session {session} cannot be resumed",
                    expected="one that stopped",
                    received=state,
                    action="comity sessions lists them",
                )
            if is_offline(self._party.store, session):
                raise _offline(session)
            log.info("session-resumed", session=session)
            self._start(InitiatedSession(*stored_contract(kept)))

    def cancel(self, session: str) -> bool:
        """Ends a session before its time; returns whether the acceptor was told.

        Raises:
            InvalidValue: It is not on any more.
        """
        found = self._sessions.get(session)
        if found is None or self._state(session) != "active":
            raise not_on(session, self._state(session))
        found.cancelled.set()
        for connection in found.connections:
            # Whatever waits for an acceptor ends; a role ends between two steps.
            connection.close()
        if found.thread is not None:
            found.thread.join(_STOP_S)
        if self._state(session) == "active":
            self._end(found, "cancelled", _own_wish())
        if self._state(session) != "cancelled":
            raise not_on(session, self._state(session))
        return self._say_farewell(found.contract)

    def _state(self, session: str) -> str:
        kept = self._party.store.find(session)
        return "unknown" if kept is None else kept.state

    def _say_farewell(self, contract: Contract) -> bool:
        told = 0
        for acceptor in contract.acceptors:
            with contextlib.suppress(ComityError), self.connection_to(acceptor, _FAREWELL) as connection:
                connection.enter(contract.session, contract.hash)
                end(connection, "cancelled")
                told += 1
        return told == len(contract.acceptors)

    def connection_to(self, acceptor: str, retry: RetryPolicy | None = None) -> PeerConnection:
        """A line to a configured peer.

        Raises:
            InvalidValue: It is none.
        """
        return PeerConnection(
            self._config.identity, acceptor, self._address(acceptor), retry or self._config.retry_policy
        )

    def _address(self, acceptor: str) -> str:
        if acceptor not in self._config.peers:
            raise InvalidValue(
                "session.acceptors names an unknown peer",
                expected=", ".join(self._config.peers) or "none",
                received=acceptor,
                action=f"configure [peers.{acceptor}] with its address",
            )
        return self._config.peers[acceptor].address

    def _start(self, session: InitiatedSession) -> None:
        name = session.contract.session
        self._sessions[name] = session
        session.thread = threading.Thread(target=self._work, args=(session,), name=f"session-{name}", daemon=True)
        session.thread.start()

    def _work(self, session: InitiatedSession) -> None:
        contract = session.contract
        try:
            with contextlib.ExitStack() as stack:
                session.connections = [
                    stack.enter_context(self.connection_to(acceptor)) for acceptor in contract.acceptors
                ]
                for connection in session.connections:
                    connection.on_absence = functools.partial(_observe_absence, session, connection)
                result, outcome = run_session(
                    contract, session.definition, self._party, session.connections, session.observe
                )
            self._finish(session, result, outcome)
        except Exception as error:  # noqa: BLE001 - the operator is told, whatever it is
            self._fail(session, error)
        finally:
            session.events.close()

    def _fail(self, session: InitiatedSession, error: Exception) -> None:
        if session.cancelled.is_set():
            self._end(session, "cancelled", _own_wish())
        elif isinstance(error, SessionCancelled):
            self._end(session, "cancelled", error)
        elif isinstance(error, PASSING):
            # Not the session's fault: it goes on when its operator says so, or when the node is started again.
            session.observe(Event("session-stopped", 0, failure(error)))
        elif isinstance(error, ComityError):
            self._end(session, "failed", error)
        else:
            log.error("session-broken", session=session.contract.session, exc_info=error)
            session.observe(Event("session-stopped", 0, {"what": f"{type(error).__name__}: {error}"}))

    def _end(self, session: InitiatedSession, ending: Ending, error: ComityError) -> None:
        self._party.end(session.contract.session, ending, failure(error))
        session.observe(Event(f"session-{ending}", 0, failure(error)))

    def _finish(self, session: InitiatedSession, result: SessionResult, outcome: Outcome) -> None:
        contract = session.contract
        self._party.keep_result(contract.session, outcome, result.to_json())
        self._party.end(contract.session, "finished", result.to_json())
        session.observe(session.definition.finished(session.contract, result.to_json()))


def _offline(session: str) -> InvalidValue:
    """The error of whoever expects the daemon to go on with a session whose rounds are offline."""
    return InvalidValue(
        f"the rounds of session {session} are offline",
        expected="comity offline",
        received="the daemon",
        action="stop the node; comity offline export then goes on with it",
    )


def not_on(session: str, state: str) -> InvalidValue:
    """The error of whoever wants to end a session that is not on."""
    return InvalidValue(
        f"session {session} cannot be cancelled",
        expected="one that is on",
        received=state,
        action="comity sessions lists them",
    )


def _observe_absence(session: InitiatedSession, connection: PeerConnection, error: ComityError | None) -> None:
    """Tells those who look on that an acceptor does not answer, or does again."""
    if error is None:
        session.observe(Event("peer-back", 0, {"peer": connection.party}))
    else:
        away: dict[str, Json] = {"peer": connection.party, "wait_s": connection.retry.retry_s}
        session.observe(Event("peer-away", 0, away | failure(error)))


def _own_wish() -> SessionCancelled:
    return SessionCancelled(
        "the session was cancelled by this node's operator", action="comity run begins another; this one is over"
    )
