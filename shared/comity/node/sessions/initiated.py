"""The sessions in which a node asks, each in a thread of its own."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Mapping
from datetime import datetime

import structlog

from comity import interruption
from comity.contract import Contract, Json, Membership
from comity.errors import ComityError, DataChanged, InvalidValue, SessionFailed, StateInUse, UnknownSession
from comity.node.config import NodeConfig
from comity.node.logs import log_event
from comity.node.party import LocalParty
from comity.node.sessions.agreement import Negotiation
from comity.node.sessions.ending import SessionEnds, own_wish, waited_too_long
from comity.node.sessions.failures import failure
from comity.node.sessions.initiated_session import InitiatedSession
from comity.node.sessions.initiator import PASSING, is_offline, require_same, run_session, stored
from comity.node.sessions.kept import stored_contract
from comity.node.sessions.lines import Lines, tell
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.roles import Operable, OperatorReply
from comity.session.events import Event
from comity.session.outcome import Outcome
from comity.session.waiting import DATA, PEER_AWAY, began, overdue
from comity.store.store import StoredSession
from comity.transport.sessions import Ending

log = structlog.get_logger()

_DATA_S = 2.0
"""Between two looks at data that have changed, in seconds."""

_STOP_S = 30.0
"""How long a cancelled session is waited for, in seconds: its unit of work is finished first."""


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
        self._lines = Lines(config)
        self._ends = SessionEnds(party)
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._sessions: dict[str, InitiatedSession] = {}

    def restore(self, role: str) -> None:
        """Takes up the sessions that were on when the node stopped."""
        for kept in self._store.ongoing():
            if kept.own["role"] == role and not kept.is_helped:
                try:
                    self._restore(kept)
                except Exception as error:
                    # The others go on, whatever a protocol's package does.
                    log.exception("session-not-resumed", session=kept.session, error=str(error))

    def _restore(self, kept: StoredSession) -> None:
        contract, definition = stored_contract(kept)
        session = InitiatedSession(contract, definition, self._store)
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
            self._lines.address(acceptor)
        with self._lock:
            kept = self._store.find(contract.session)
            if kept is not None and not self._never_began(kept):
                require_same(kept, contract, joins=definition.topology.is_joined)
                return
            self._store.save(stored(contract, self._party.membership(definition.initiator, contract)))
        self._start(InitiatedSession(contract, definition, self._store))

    def stop(self) -> None:
        """Says that the node stops: what its sessions still wanted of it they go on with when it is back."""
        self._is_over.set()

    def _never_began(self, kept: StoredSession) -> bool:
        """Whether a session was refused here before anything of it left: what refused it the owner may have changed since."""
        return kept.state == "refused" and not self._store.chains(kept.session)

    def find(self, session: str) -> InitiatedSession | None:
        """A session that was on at some time since the node started."""
        return self._sessions.get(session)

    def stopped(self) -> dict[str, str]:
        """Why sessions have stopped, by identifier, since the node started."""
        return {name: session.why_stopped for name, session in self._sessions.items() if session.why_stopped}

    def running(self) -> set[str]:
        """Identifiers of the active sessions."""
        return {name for name, session in self._sessions.items() if session.running}

    def end_untrusted(self) -> None:
        """Closes the lines to parties that are not trusted any more; their sessions stop, and say why when they go on."""
        identity = self._config.identity
        for session in list(self._sessions.values()):
            for connection in session.connections:
                try:
                    connection.require_trusted(identity)
                except ComityError as error:
                    log.warning("line-cut", session=session.contract.session, peer=connection.party, error=str(error))
                    connection.close()

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
            self._start(InitiatedSession(*stored_contract(kept), self._store))

    def call(self, session: str, call: str, fields: Mapping[str, Json]) -> OperatorReply:
        """Asks something of a session's role that it has to do with its operator.

        Raises:
            InvalidValue: There is no such session, it does not work yet, or has nothing to do with an operator.
            ComityError: What the role says to it.
        """
        found = self._sessions.get(session)
        if found is None or not self._is_on(session):
            raise InvalidValue(
                f"session {session} has nothing to ask",
                expected="a session of this node that is on",
                received=self._state(session),
                action="comity sessions lists them",
            )
        if isinstance(found.role, Operable):
            return found.role.operated(call, fields)
        raise InvalidValue(
            f"session {session} has nothing to ask",
            expected="a session that needs its operator",
            received="one that has not begun" if found.role is None else f"one of {found.definition.name}",
            action="comity show says what it waits for",
        )

    def take_up(self) -> None:
        """Goes on with sessions that stopped since somebody was away, each when its time has come."""
        for name, session in list(self._sessions.items()):
            if session.again_at is not None and session.again_at <= time.monotonic() and not session.running:
                session.again_at = None
                try:
                    self.resume(name)
                except (InvalidValue, StateInUse) as error:
                    # It was ended meanwhile, or another process works on it.
                    log.info("session-not-resumed", session=name, error=str(error))

    def cancel(self, session: str) -> bool:
        """Ends a session before its time, or one that waits for nothing else well; returns whether the acceptor was told.

        Raises:
            InvalidValue: It is not on any more.
        """
        return self._conclude(session) or self._give_up(session, own_wish())

    def _conclude(self, session: str) -> bool:
        """Ends a session well that has done its work, and waits for its operator's word; returns whether it did."""
        found = self._sessions.get(session)
        if found is None or found.thread is None or not found.waits.conclude():
            return False
        found.thread.join(_STOP_S)
        return self._state(session) == "finished"

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
            session,
            error,
            found.observe,
            tell=lambda ending: self._lines.farewell(found.contract, ending),
            so_far=self._so_far(found),
        )
        found.events.close()
        return told

    def _is_on(self, session: str) -> bool:
        kept = self._store.find(session)
        return kept is not None and kept.is_on

    def _state(self, session: str) -> str:
        kept = self._store.find(session)
        return "unknown" if kept is None else kept.state

    def _start(self, session: InitiatedSession) -> None:
        """Starts work on a session.

        Raises:
            StateInUse: Another process does.
        """
        name = session.contract.session
        self._party.enter(name, session.lose)
        self._sessions[name] = session
        session.thread = threading.Thread(target=self._work, args=(session,), name=f"session-{name}", daemon=True)
        session.thread.start()

    def _work(self, session: InitiatedSession) -> None:
        contract = session.contract
        # Who was away when the node stopped need not be now.
        session.waits.clear(PEER_AWAY, DATA)
        structlog.contextvars.bind_contextvars(session=contract.session)
        try:
            with contextlib.ExitStack() as stack, interruption.checked(session.require_wanted):
                session.connections = [stack.enter_context(self._lines.to(acceptor)) for acceptor in contract.acceptors]
                for connection in session.connections:
                    connection.presence.on_change = functools.partial(session.observe_absence, connection)
                self._await_data(session)
                own = self._own(contract.session)
                negotiation = Negotiation(contract, session.definition, self._party, own, session.waits, session.pause)
                outcome = run_session(negotiation, session.connections, session.observe, session.take)
                self._ends.finish(
                    contract, session.observe, outcome=outcome, tell=functools.partial(tell, session.connections)
                )
        except interruption.Interrupted:
            log.info("session-interrupted", session=contract.session)
        except Exception as error:  # noqa: BLE001 - the operator is told, whatever it is
            if self._is_over.is_set():
                log.info("session-interrupted", session=contract.session)
            else:
                self._fail(session, error)
        finally:
            self._party.leave(contract.session)
        if not session.cancelled.is_set():
            session.events.close()

    def _await_data(self, session: InitiatedSession) -> None:
        """Waits until this party's data are those that a session was agreed on."""
        name = session.contract.session
        try:
            self._party.require_same_data(name)
        except DataChanged as error:
            session.waits.begin(DATA, why=str(error))
            while not self._are_back(name):
                session.pause(_DATA_S)
            session.waits.end(DATA)

    def _are_back(self, session: str) -> bool:
        try:
            self._party.require_same_data(session, again=True)
        except DataChanged:
            return False
        return True

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
            # Not the session's fault: it goes on when its operator says so, when the node is started again, and after a while.
            if not isinstance(error, ComityError):
                log.error("session-broken", session=name, exc_info=error)
            elif self._config.retry.again_s is not None:
                session.again_at = time.monotonic() + self._config.retry.again_s
            session.waits.clear()
            why = failure(error) if isinstance(error, ComityError) else {"what": f"{type(error).__name__}: {error}"}
            session.observe(Event("session-stopped", 0, why))
        else:
            # Or it would count as one that goes on, against what the acceptors' policies allow at a time.
            self._ends.fail(
                name,
                error,
                session.observe,
                tell=lambda ending: self._lines.farewell(session.contract, ending),
                so_far=self._so_far(session),
            )

    def _so_far(self, session: InitiatedSession) -> tuple[Contract, Outcome] | None:
        """What a session that ends early came to until then, where its rounds are worth something."""
        outcome = session.so_far(self._party.rounds_finished(session.contract.session))
        return None if outcome is None else (session.contract, outcome)


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


def _not_told(ending: Ending) -> bool:
    """For a session whose acceptors nobody can tell."""
    del ending
    return False
