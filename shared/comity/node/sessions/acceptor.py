"""Decides on proposals: which sessions a node helps in."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from comity.contract import Contract, Membership
from comity.errors import ComityError, InvalidValue, PolicyRefusal, UnknownWeights
from comity.node.party import LocalParty
from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.approval import is_undecided
from comity.node.sessions.budget import require_affordable
from comity.node.sessions.ending import ended_by
from comity.node.sessions.initiator import require_same, stored
from comity.node.sessions.joined import admit, not_open
from comity.node.sessions.kept import stored_contract
from comity.node.sessions.one_each import OneEach
from comity.node.sessions.proposals import Proposal, read_proposal, require_admissible
from comity.node.sessions.room import promise, require_memory
from comity.node.sessions.weight_transfers import WeightTransfer, require_room
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.session.gate import EgressGate
from comity.session.policy import Asked, Reserved
from comity.session.session_registry import AcceptedSession
from comity.store.store import StoredSession
from comity.transport.sessions import Ending
from comity.wire.v1 import sessions_pb2

log = structlog.get_logger()


class Acceptor:
    """Decides on proposals, and has work started on what is agreed.

    Args:
        party: This party.
        accepted: The sessions in which it helps.
        asks: Whether policy may have an operator asked; one who stands by has decided.

    Attributes:
        accepted: These sessions.
    """

    def __init__(self, party: LocalParty, accepted: AcceptedSessions, *, asks: bool = True) -> None:
        self.accepted = accepted
        self._party = party
        self._store = party.store
        self._sessions = accepted.active
        self._approvals = accepted.approvals
        self._transfers = accepted.transfers
        self._deciding = accepted.deciding
        self._stands_by = not asks
        self._trying = OneEach()
        self._measuring = threading.Lock()
        self._on_trial: Counter[str] = Counter()

    @property
    def _asks(self) -> bool:
        """Whether an operator decides on what the policy admits."""
        return self._party.config.policy.approve == "ask" and not self._stands_by

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
            TooManyCalls: Another one of the caller's is being tried.
        """
        proposal = read_proposal(self._party, self.accepted.role, caller, message)
        contract, definition, peer = proposal.contract, proposal.definition, proposal.peer
        self._try_first(proposal)
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
            self._transfers.require_unclaimed(contract.session, peer.party)
            try:
                promised = self._require_admissible(proposal, own)
            except UnknownWeights:
                self._transfers.expect(contract, peer.party, reserved=self._sessions.reserved(peer.party))
                raise
            except ComityError:
                self._transfers.forget(contract, peer.party)
                raise
            entered = stored(contract, own, peer, promised=promised)
            if self._asks:
                self._approvals.ask(entered, peer)
                self._transfers.forget(contract, peer.party)
                return None
            session = self.accepted.begin(contract, definition, own, [peer])
            self._store.save(entered)
            self._transfers.forget(contract, peer.party)
            self._tell(contract, own, peer)
            return session.of(peer.party)

    def _try_first(self, proposal: Proposal) -> None:
        """Has a contract's models tried before anything is decided, which goes on for others meanwhile: that may take minutes.

        Whether the proposal is admissible is found out again afterwards; what was tried is not tried again.
        """
        contract, session, peer = proposal.contract, proposal.contract.session, proposal.peer.party
        known = self._sessions.find(session) is not None or self._store.find(session) is not None
        if known or proposal.definition.topology.is_joined:
            return
        self._party.config.policy.require_admitted(self._party.name, peer)
        if self._party.is_tried(contract):
            return
        with self._trying.of(peer):
            own = self._party.membership(proposal.definition.acceptor, contract)
            self._transfers.require_unclaimed(session, peer)
            try:
                self._require_admissible(proposal, own)
            except UnknownWeights:
                # Those that are not here yet are asked for when it is decided.
                return
            except ComityError:
                self._transfers.forget(contract, peer)
                raise

    def review(self, caller: str, draft: sessions_pb2.DraftRequest) -> sessions_pb2.DraftReply:
        """Whether it would agree to a contract; nothing of it is kept.

        Args:
            caller: Party that asks, by its certificate.
            draft: The contract and the caller's part in it.

        Raises:
            RefusedError: It would refuse it, with the reason.
            MalformedMessage: The draft cannot be read.
            TooManyCalls: Another one of the caller's is being looked at.
        """
        with self._trying.of(caller):
            return self._review(caller, draft)

    def _review(self, caller: str, draft: sessions_pb2.DraftRequest) -> sessions_pb2.DraftReply:
        proposal = read_proposal(self._party, self.accepted.role, caller, draft)
        contract, definition, peer = proposal.contract, proposal.definition, proposal.peer
        lacks = False
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
            self._transfers.require_unclaimed(contract.session, peer.party)
            try:
                self._require_admissible(proposal, own, kept)
            except UnknownWeights:
                missing = self._party.missing_weights(contract)
                if not missing:
                    raise
                require_room(self._party, contract, missing, reserved=self._sessions.reserved(peer.party))
                require_affordable(self._store, self._party.config.policy, contract, own, [peer])
                lacks = True
        asks = self._asks and not definition.topology.is_joined
        return sessions_pb2.DraftReply(contract_hash=contract.hash, asks_operator=asks, lacks_weights=lacks)

    def approve(self, session: str) -> None:
        """Agrees to a proposal that waits for an operator; its initiator finds out when it asks again.

        Raises:
            InvalidValue: There is none.
            RefusedError: It does not fit this node any more.
            StateInUse: Another process agrees to it.
        """
        # Before others are kept waiting: its models were tried when it was proposed, if the node was not started since.
        self._party.tried_task(stored_contract(self._approvals.waiting(session))[0])
        with self._deciding:
            self._approvals.waiting(session)
            # Before it is looked at: of several processes that are told to agree, one does.
            self.accepted.claim(session)
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
            self.accepted.begin(contract, definition, own, [peer])
        except BaseException:
            self._store.save(kept)
            raise
        self._tell(contract, own, peer)

    def _tell(self, contract: Contract, own: Membership, peer: Membership) -> None:
        """Says in the log what was agreed to, and what of the samples stands behind what will be sent."""
        backing = self._party.backing(contract, own)
        behind = {} if backing is None else {"behind_each_send": backing.told(own.samples)}
        log.info("session-accepted", session=contract.session, peer=peer.party, rounds=contract.rounds, **behind)

    def refuse(self, session: str, reason: str) -> None:
        """Refuses a proposal that waits for an operator; its initiator is told the reason when it asks again.

        Raises:
            InvalidValue: There is none.
        """
        with self._deciding:
            kept = self._approvals.waiting(session)
            self.accepted.give_up(kept.session, self._approvals.refusal(reason))

    def finish(self, session: AcceptedSession, ending: Ending) -> None:
        """Ends a session that its initiator is done with; see `AcceptedSessions.finish`."""
        self.accepted.finish(session, ending)

    def withdraw(self, caller: str, session: str, contract_hash: str, ending: Ending) -> None:
        """Ends a proposal on which nobody has decided yet, and which its initiator takes back; none is no error."""
        with self._deciding:
            active = self._sessions.find(session)
            theirs = None if active is None else active.of(caller)
            if theirs is not None and theirs.contract.hash == contract_hash:
                # Somebody has decided meanwhile.
                self.accepted.finish(theirs, ending)
                return
            kept = self._store.find(session) if session else None
            if kept is None or not is_undecided(kept) or caller not in {each["party"] for each in kept.peers}:
                return
            if stored_contract(kept)[0].hash == contract_hash:
                self.accepted.give_up(session, ended_by(caller, ending))

    def _require_admissible(self, proposal: Proposal, own: Membership, kept: StoredSession | None = None) -> int:
        """What a proposal takes on disk, where policy, room and privacy budget admit it beside all other sessions."""
        peer, name = proposal.peer.party, kept and kept.session
        others = [each for each in self.accepted.ongoing() if each.session != name]
        theirs = sum(peer in {each["party"] for each in other.peers} for other in others)
        since = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="milliseconds")
        # One that waits for an operator was begun when it was proposed.
        begun = self._store.begun(peer, since) - (kept is not None and kept.begun >= since)
        asked = Asked(theirs, begun)
        promised = require_admissible(
            self._party,
            proposal,
            own,
            active=sum(each.counts for each in others),
            asked=asked,
            holding=self._holding,
        )
        require_affordable(self._store, self._party.config.policy, proposal.contract, own, [proposal.peer])
        return promised

    @contextmanager
    def _holding(self, contract: Contract, peer: str) -> Iterator[None]:
        """Holds the memory that a session's models may take while they are tried, which several parties' are at a time.

        Raises:
            PolicyRefusal: There is none for them beside those of sessions and of other trials.
        """
        with self._measuring:
            others = Reserved(sum(self._on_trial.values()), self._on_trial[peer])
            needed = require_memory(self._party, contract, self._sessions.reserved(peer) + others)
            self._on_trial[peer] += needed
        try:
            yield
        finally:
            with self._measuring:
                self._on_trial[peer] -= needed
                if not self._on_trial[peer]:
                    del self._on_trial[peer]

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
        if self._store.find(contract.session) is None:
            self._party.try_apart(contract)
        with self._deciding:
            kept = self._store.find(contract.session)
            if kept is not None:
                require_same(kept, contract)
                return
            own = self._party.membership(definition.acceptor, contract)
            self._party.review(contract, own, (), active=self.accepted.counted)
            require_memory(self._party, contract, self._sessions.reserved())
            promised = promise(self._party, contract, own, own, definition)
            self._store.save(stored(contract, own, promised=promised))
            self.accepted.begin(contract, definition, own, [])

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

    def starting(self, caller: str, session: str, contract_hash: str) -> WeightTransfer | None:
        """The weights that a caller may send with its proposal, or have of a session that it may join; None for none.

        Args:
            caller: Party that calls, by its certificate.
            session: The session that it quotes.
            contract_hash: The contract that it quotes.
        """
        try:
            self._party.config.policy.require_admitted(self._party.name, caller)
        except PolicyRefusal:
            return None
        active = self._sessions.find(session)
        if active is not None and active.contract.is_open and active.contract.hash == contract_hash:
            return self._transfers.offer(active.contract, caller)
        return self._transfers.find(caller, session, contract_hash)

    def gate(self, contract: Contract, party: str) -> EgressGate:
        """What may leave to a party with which there is no session yet."""
        return self._party.gate(contract, party)
