"""The sessions in which a node helps: takes proposals, works on what was agreed, and goes on after a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from comity.contract import Contract, Membership
from comity.errors import (
    ComityError,
    DataChanged,
    InvalidValue,
    PolicyRefusal,
    SessionFailed,
)
from comity.node.logs import log_event
from comity.node.party import LocalParty
from comity.node.sessions.approval import Approvals, is_undecided
from comity.node.sessions.budget import require_affordable
from comity.node.sessions.ending import (
    SessionEnds,
    ended_by,
    is_past,
    own_wish,
    silent_too_long,
    valid_no_more,
    waited_too_long,
)
from comity.node.sessions.initiator import require_same, stored
from comity.node.sessions.joined import admit, not_open
from comity.node.sessions.kept import stored_contract
from comity.node.sessions.proposals import Proposal, read_proposal, require_admissible
from comity.node.sessions.room import promise, require_memory
from comity.node.sessions.work import SessionWork
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.session.events import Event
from comity.session.gate import EgressGate
from comity.session.policy import Asked
from comity.session.replayable_stream import ReplayableStream
from comity.session.session_registry import AcceptedSession, ActiveSession, SessionRegistry
from comity.session.waiting import DATA, Waits, overdue
from comity.session.worker import Steppable, Worker
from comity.store.store import StoredSession
from comity.transport.sessions import Ending
from comity.wire.v1 import sessions_pb2

log = structlog.get_logger()


class Acceptor:
    """Decides on proposals, and starts work on what is agreed.

    Args:
        party: This party.
        role: The role in which it helps.
        sessions: The active ones.
        work: What drives the role of a session with one initiator; a thread of its own if nothing is said.
        asks: Whether policy may have an operator asked; one who stands by has decided.
    """

    def __init__(
        self,
        party: LocalParty,
        role: str,
        sessions: SessionRegistry,
        work: Callable[[Steppable, str], Worker] | None = None,
        *,
        asks: bool = True,
    ) -> None:
        self._party = party
        self._store = party.store
        self._role = role
        self._sessions = sessions
        self._ends = SessionEnds(party)
        self._work = SessionWork(party, sessions, self._ends, work)
        self._asks = asks and party.config.policy.approve == "ask"
        self._approvals = Approvals(party.store, party.name)
        self._deciding = threading.RLock()

    def restore(self) -> None:
        """Takes up the sessions that were on when the node stopped; what an operator has to decide on still waits."""
        for kept in self._store.sessions():
            if not self._is_own(kept) or not kept.is_on or is_undecided(kept):
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
        self._set_up(contract, definition, Membership.model_validate(kept.own), peers)
        Waits(self._store, kept.session, partial(log_event, kept.session)).end(DATA)
        log.info("session-resumed", session=kept.session)

    def look_at_data(self) -> None:
        """Goes on with sessions that waited for this party's data, where these are back."""
        for kept in self._store.sessions():
            waits = kept.is_on and any(each.reason == DATA.name for each in kept.waits)
            if not waits or not self._is_own(kept) or self._sessions.find(kept.session) is not None:
                continue
            with self._deciding:
                try:
                    self._party.require_same_data(kept.session, again=True)
                    self._restore(kept)
                except DataChanged:
                    continue
                except Exception as error:
                    # As in `restore`: the others go on.
                    log.exception("session-not-resumed", session=kept.session, error=str(error))

    def accept(self, caller: str, message: sessions_pb2.Proposal) -> AcceptedSession | None:
        """Agrees to a proposal; to the same one again with the same session.

        Args:
            caller: Party that proposes, by its certificate.
            message: The contract and the caller's part in it.

        Returns:
            The session; None where an operator has to decide, which the same proposal asks again.

        Raises:
            RefusedError: The contract is refused, with the reason.
            SessionCancelled: It was agreed to, and cancelled since.
            MalformedMessage: The proposal cannot be read.
            ReceiptInvalid: It is not signed with the key that the caller is known by.
        """
        proposal = read_proposal(self._party, self._role, caller, message)
        contract, definition, peer = proposal.contract, proposal.definition, proposal.peer
        with self._deciding:
            active = self._sessions.find(contract.session)
            if active is not None and active.contract.hash == contract.hash:
                known = active.of(peer.party)
                if known is not None and known.context.peer == peer:
                    return known
                if definition.topology.is_joined:
                    return admit(self._party, active, peer)
            if definition.topology.is_joined and active is None:
                raise not_open(contract.session)
            kept = self._store.find(contract.session)
            if kept is not None:
                self._approvals.require_undecided(kept, proposal)
                return None
            own = self._party.membership(definition.acceptor, contract)
            promised = self._require_admissible(proposal, own)
            entered = stored(contract, own, peer, promised=promised)
            if self._asks:
                self._approvals.ask(entered, peer)
                return None
            session = self._set_up(contract, definition, own, [peer])
            self._store.save(entered)
            return session.of(peer.party)

    def review(self, caller: str, draft: sessions_pb2.DraftRequest) -> sessions_pb2.DraftReply:
        """Whether it would agree to a contract; nothing of it is kept.

        Args:
            caller: Party that asks, by its certificate.
            draft: The contract and the caller's part in it.

        Raises:
            RefusedError: It would refuse it, with the reason.
            MalformedMessage: The draft cannot be read.
        """
        proposal = read_proposal(self._party, self._role, caller, draft)
        contract, definition, peer = proposal.contract, proposal.definition, proposal.peer
        policy = self._party.config.policy
        active = self._sessions.find(contract.session)
        same = active is not None and active.contract.hash == contract.hash
        if definition.topology.is_joined and active is None:
            raise not_open(contract.session)
        if active is not None and same and definition.topology.is_joined:
            self._party.review(contract, active.place.own, (peer.party,), active=0)
        elif not same:
            kept = self._store.find(contract.session)
            if kept is not None:
                self._approvals.require_undecided(kept, proposal)
            own = self._party.membership(definition.acceptor, contract)
            self._require_admissible(proposal, own, kept)
            require_affordable(self._store, policy, contract, own, [peer])
        asks = self._asks and not definition.topology.is_joined
        return sessions_pb2.DraftReply(contract_hash=contract.hash, asks_operator=asks)

    def approve(self, session: str) -> None:
        """Agrees to a proposal that waits for an operator; its initiator finds out when it asks again.

        Raises:
            InvalidValue: There is none.
            RefusedError: It does not fit this node any more.
            StateInUse: Another process agrees to it.
        """
        with self._deciding:
            self._approvals.waiting(session)
            # Before it is looked at: of several processes that are told to agree, one does.
            self._party.enter(session, lambda: self._work.lose(session))
            try:
                self._approve(session)
            except BaseException:
                self._party.leave(session)
                raise

    def _approve(self, session: str) -> None:
        kept = self._approvals.waiting(session)
        contract, definition = stored_contract(kept)
        (peer,) = (Membership.model_validate(each) for each in kept.peers)
        # The data may be others since.
        own = self._party.membership(definition.acceptor, contract)
        promised = self._require_admissible(Proposal(contract, definition, peer), own, kept)
        self._store.save(replace(stored(contract, own, peer, promised=promised), begun=kept.begun))
        try:
            self._set_up(contract, definition, own, [peer])
        except BaseException:
            self._store.save(kept)
            raise
        log.info("session-approved", session=session, peer=peer.party)

    def refuse(self, session: str, reason: str) -> None:
        """Refuses a proposal that waits for an operator; its initiator is told the reason when it asks again.

        Raises:
            InvalidValue: There is none.
        """
        with self._deciding:
            kept = self._approvals.waiting(session)
            self._give_up(kept.session, self._approvals.refusal(reason))

    def finish(self, session: AcceptedSession, ending: Ending) -> None:
        """Ends a session that its initiator is done with.

        One that many joined goes on without that initiator, and ends when its role is over.
        """
        name, peer = session.contract.session, session.context.peer.party
        if session.contract.is_open:
            session.worker.call(lambda: session.role.leave(peer))
            self._sessions.leave(name, peer)
            log.info("session-left", session=name, peer=peer)
        elif ending == "finished":
            self._sessions.remove(name)
            self._ends.finish(session.contract, session.events.append)
            session.events.close()
        else:
            self._give_up(name, ended_by(peer, ending))

    def withdraw(self, caller: str, session: str, contract_hash: str, ending: Ending) -> None:
        """Ends a proposal on which nobody has decided yet, and which its initiator takes back; none is no error."""
        with self._deciding:
            active = self._sessions.find(session)
            accepted = None if active is None else active.of(caller)
            if accepted is not None and accepted.contract.hash == contract_hash:
                # Somebody has decided meanwhile.
                self.finish(accepted, ending)
                return
            kept = self._store.find(session) if session else None
            if kept is None or not is_undecided(kept) or caller not in {each["party"] for each in kept.peers}:
                return
            if stored_contract(kept)[0].hash == contract_hash:
                self._give_up(session, ended_by(caller, ending))

    def expire(self, now: datetime) -> None:
        """Ends what has waited longer than the policy lets it, and what is not valid any more by its contract.

        What was half uploaded, and that nobody goes on with, is dropped.
        """
        for kept in self._store.sessions():
            if not kept.is_on or not self._is_own(kept):
                continue
            waited = overdue(kept, self._party.config.policy.max_wait_s, now)
            if waited is not None:
                error = waited_too_long(waited, PolicyRefusal if is_undecided(kept) else SessionFailed)
            elif is_past(kept, now):
                error = valid_no_more(kept)
            else:
                continue
            with self._deciding:
                self._give_up(kept.session, error)

        for session in self._sessions.silent():
            found = self._store.find(session)
            # What it waits for has bounds of its own.
            if found is not None and not found.waits:
                with self._deciding:
                    self._give_up(session, silent_too_long())
        self._sessions.drop_half_uploads(self._party.config.limits.half_upload_s)

    def _require_admissible(self, proposal: Proposal, own: Membership, kept: StoredSession | None = None) -> int:
        """What a proposal takes on disk, where policy and room admit it beside all other sessions; see there."""
        others = [
            each for each in self._store.sessions() if self._is_own(each) and each.session != (kept and kept.session)
        ]
        theirs = [each for each in others if proposal.peer.party in {peer["party"] for peer in each.peers}]
        since = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="milliseconds")
        asked = Asked(sum(each.is_on for each in theirs), sum(each.begun >= since for each in theirs))
        return require_admissible(
            self._party,
            proposal,
            own,
            active=sum(each.counts for each in others),
            asked=asked,
            reserved=self._sessions.memory,
        )

    def cancel(self, session: str) -> bool:
        """Ends a session before its time; its initiators are told at their next call. Returns whether it is on here."""
        kept = self._store.find(session)
        if kept is None or not self._is_own(kept) or not kept.is_on:
            return False
        self._give_up(session, own_wish())
        return True

    def _give_up(self, session: str, error: ComityError) -> None:
        """Ends a session early: its worker stops, and observers are told."""
        active = self._sessions.find(session)
        if active is not None:
            # It stays known until its end is kept: who asks meanwhile asks again, and is then told of it.
            active.stop()
        events = self._approvals.take_events(session) if active is None else active.events
        self._ends.fail(session, error, partial(log_event, session) if events is None else events.append)
        self._sessions.remove(session)
        if events is not None:
            events.close()

    def open(self, contract: Contract, definition: ProtocolDefinition) -> None:
        """Opens a session, which those whom the policy admits may join; once, however often it is asked for while it is on.

        Raises:
            InvalidValue: Its identifier is taken, or it names another acceptor.
            RefusedError: This party's own policy, model or data refuse it.
        """
        if contract.acceptors != (self._party.name,):
            raise InvalidValue(
                "session.acceptors names another party",
                expected=self._party.name,
                received=", ".join(contract.acceptors),
                action="open the session at the node that it names, or name this one",
            )
        with self._deciding:
            kept = self._store.find(contract.session)
            if kept is not None:
                require_same(kept, contract)
                return
            own = self._party.membership(definition.acceptor, contract)
            self._party.review(contract, own, (), active=self.counted)
            require_memory(self._party, contract, self._sessions.memory)
            promised = promise(self._party, contract, own, own, definition)
            self._store.save(stored(contract, own, promised=promised))
            self._set_up(contract, definition, own, [])

    def fetch(self, caller: str, session: str) -> tuple[Contract, ProtocolDefinition]:
        """The contract of a session that is open, with its protocol.

        Args:
            caller: Party that asks, by its certificate.
            session: The session.

        Raises:
            PolicyRefusal: The party may have no session here.
            UnknownSession: There is none.
        """
        self._party.config.policy.require_admitted(self._party.name, caller)
        active = self._sessions.find(session)
        if active is None or not active.contract.is_open:
            raise not_open(session)
        return active.contract, protocol(active.contract.protocol)

    def gate(self, contract: Contract, party: str) -> EgressGate:
        """What may leave to a party with which there is no session yet."""
        return self._party.gate(contract, party)

    def events(self, session: str) -> ReplayableStream[Event] | None:
        """What happens in an active session, None where it is not."""
        with self._deciding:
            active = self._sessions.find(session)
            return self._approvals.events(session) if active is None else active.events

    @property
    def counted(self) -> int:
        """Number of the sessions that count against what the policy allows at a time."""
        return sum(kept.counts and self._is_own(kept) for kept in self._store.sessions())

    def _is_own(self, kept: StoredSession) -> bool:
        """Whether this party helps in a session, rather than asks."""
        return kept.own["role"] == self._role and kept.is_helped

    def drain(self) -> None:
        """Takes no new session and stops those that are active."""
        self._sessions.drain()
        self._approvals.drain()

    def _set_up(
        self, contract: Contract, definition: ProtocolDefinition, own: Membership, peers: Sequence[Membership]
    ) -> ActiveSession:
        """Has the role go on from what is kept, and starts work on it; observers of its proposal stay."""
        return self._work.begin(contract, definition, own, peers, self._approvals.take_events(contract.session))
