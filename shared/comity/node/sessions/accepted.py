"""The sessions in which a node helps, from when they are agreed to: goes on with them after a restart, and ends them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial

import structlog

from comity.contract import Contract, Membership
from comity.errors import ComityError, DataChanged, PolicyRefusal, SessionFailed
from comity.node.logs import log_event
from comity.node.party import LocalParty
from comity.node.sessions.approval import Approvals, is_undecided
from comity.node.sessions.ending import (
    SessionEnds,
    ended_by,
    is_past,
    own_wish,
    silent_too_long,
    valid_no_more,
    waited_too_long,
)
from comity.node.sessions.kept import stored_contract
from comity.node.sessions.weight_transfers import WeightTransfers
from comity.node.sessions.work import SessionWork
from comity.protocol.definition import ProtocolDefinition
from comity.session.events import Event
from comity.session.replayable_stream import ReplayableStream
from comity.session.session_registry import AcceptedSession, ActiveSession, SessionRegistry
from comity.session.waiting import DATA, Waits, overdue
from comity.session.worker import Steppable, Worker
from comity.store.store import StoredSession
from comity.transport.sessions import Ending

log = structlog.get_logger()

_TELLING_S = 60.0
"""How long the initiator of a session that failed here has to hear of it and to end it, in seconds."""


class AcceptedSessions:
    """Those of one role.

    Args:
        party: This party.
        role: The role in which it helps.
        active: Those at work.
        work: What drives the role of a session with one initiator; a thread of its own if nothing is said.

    Attributes:
        role: The role.
        active: Those at work.
        approvals: The proposals among them that wait for an operator.
        transfers: The weights that come with proposals.
        deciding: Is held by who begins one or ends one.
    """

    def __init__(
        self,
        party: LocalParty,
        role: str,
        active: SessionRegistry,
        work: Callable[[Steppable, str], Worker] | None = None,
    ) -> None:
        self._party = party
        self._store = party.store
        self.role = role
        self.active = active
        self._ends = SessionEnds(party)
        self._work = SessionWork(party, active, self._ends, work)
        self.approvals = Approvals(party.store, party.name)
        self.transfers = WeightTransfers(party)
        self.deciding = threading.RLock()

    @property
    def counted(self) -> int:
        """Number of the sessions that count against what the policy allows at a time."""
        return sum(kept.counts for kept in self.ongoing())

    def ongoing(self) -> Iterator[StoredSession]:
        """Those that are not over, oldest first."""
        return (each for each in self._store.ongoing() if self._is_own(each))

    def _is_own(self, kept: StoredSession) -> bool:
        """Whether this party helps in a session, rather than asks."""
        return kept.own["role"] == self.role and kept.is_helped

    def begin(
        self, contract: Contract, definition: ProtocolDefinition, own: Membership, peers: Sequence[Membership]
    ) -> ActiveSession:
        """Has the role go on from what is kept, and starts work on it; observers of its proposal stay."""
        return self._work.begin(contract, definition, own, peers, self.approvals.take_events(contract.session))

    def claim(self, session: str) -> None:
        """Has this process be the one that works on a session; until it gives it up, or another takes it over.

        Raises:
            StateInUse: Another process works on it.
        """
        self._party.enter(session, lambda: self._work.lose(session))

    def restore(self) -> None:
        """Takes up the sessions that were on when the node stopped; what an operator has to decide on still waits."""
        self.transfers.clear()
        for kept in self.ongoing():
            if is_undecided(kept):
                continue
            try:
                self._restore(kept)
            except DataChanged as error:
                Waits(self._store, kept.session, partial(log_event, kept.session)).begin(DATA, why=str(error))
            except Exception as error:
                # The others go on, whatever a protocol's package does; its initiator is told that there is no such session.
                log.exception("session-not-resumed", session=kept.session, error=str(error))

    def _restore(self, kept: StoredSession) -> None:
        contract, definition = stored_contract(kept)
        peers = [Membership.model_validate(each) for each in kept.peers]
        self.begin(contract, definition, Membership.model_validate(kept.own), peers)
        Waits(self._store, kept.session, partial(log_event, kept.session)).end(DATA)
        log.info("session-resumed", session=kept.session)

    def look_at_data(self) -> None:
        """Goes on with sessions that waited for this party's data, where these are back."""
        for kept in self.ongoing():
            waits = any(each.reason == DATA.name for each in kept.waits)
            if not waits or self.active.find(kept.session) is not None:
                continue
            try:
                self._party.require_same_data(kept.session, again=True)
                self._party.try_apart(stored_contract(kept)[0])
                with self.deciding:
                    self._restore(kept)
            except DataChanged:
                continue
            except Exception as error:
                # As in `restore`: the others go on.
                log.exception("session-not-resumed", session=kept.session, error=str(error))

    def finish(self, session: AcceptedSession, ending: Ending) -> None:
        """Ends a session that its initiator is done with.

        One that many joined goes on without that initiator, and ends when its role is over.
        """
        name, peer = session.contract.session, session.context.peer.party
        if session.contract.is_open:
            session.worker.call(lambda: session.role.leave(peer))
            self.active.leave(name, peer)
            log.info("session-left", session=name, peer=peer)
        elif ending == "finished":
            self.active.remove(name)
            self._ends.finish(session.contract, session.events.append)
            session.events.close()
        else:
            self.give_up(name, ended_by(peer, ending))

    def expire(self, now: datetime) -> None:
        """Ends what has waited longer than the policy lets it, and what is not valid any more by its contract.

        What was half uploaded, and that nobody goes on with, is dropped.
        """
        for kept in self.ongoing():
            waited = overdue(kept, self._party.config.policy.max_wait_s, now)
            if waited is not None:
                error = waited_too_long(waited, PolicyRefusal if is_undecided(kept) else SessionFailed)
            elif is_past(kept, now):
                error = valid_no_more(kept)
            else:
                continue
            with self.deciding:
                self.give_up(kept.session, error)

        for session, error in self.active.failed(_TELLING_S).items():
            with self.deciding:
                self.give_up(session, error)
        for session in self.active.silent():
            found = self._store.find(session)
            # What it waits for has bounds of its own.
            if found is not None and not found.waits:
                with self.deciding:
                    self.give_up(session, silent_too_long())
        self.active.drop_half_uploads(self._party.config.limits.half_upload_s)
        self.transfers.drop_late(self._party.config.limits.half_upload_s)

    def cancel(self, session: str) -> bool:
        """Ends a session before its time; its initiators are told at their next call. Returns whether it is on here."""
        kept = self._store.find(session)
        if kept is None or not self._is_own(kept) or not kept.is_on:
            return False
        self.give_up(session, own_wish())
        return True

    def give_up(self, session: str, error: ComityError) -> None:
        """Ends a session early: its worker stops, and observers are told."""
        active = self.active.find(session)
        if active is not None:
            # It stays known until its end is kept: who asks meanwhile asks again, and is then told of it.
            active.stop()
        events = self.approvals.take_events(session) if active is None else active.events
        self._ends.fail(session, error, partial(log_event, session) if events is None else events.append)
        self.active.remove(session)
        if events is not None:
            events.close()

    def events(self, session: str) -> ReplayableStream[Event] | None:
        """What happens in an active session, None where it is not."""
        with self.deciding:
            found = self.active.find(session)
            return self.approvals.events(session) if found is None else found.events

    def drain(self) -> None:
        """Takes no new session and stops those that are active."""
        self.active.drain()
        self.approvals.drain()
