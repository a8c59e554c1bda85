"""Proposals that wait for an operator of this node."""

from __future__ import annotations

from dataclasses import replace

import structlog

from comity.contract import Membership
from comity.errors import ContractMismatch, InvalidValue, PolicyRefusal
from comity.node.sessions.ending import ended_by
from comity.node.sessions.failures import raised
from comity.node.sessions.kept import stored_contract
from comity.node.sessions.proposals import Proposal
from comity.session.events import Event
from comity.session.replayable_stream import ReplayableStream
from comity.session.waiting import APPROVAL, began
from comity.store.store import Store, StoredSession

log = structlog.get_logger()


class Approvals:
    """The proposals on which an operator has to decide. They are in the store; observers are kept here.

    Args:
        store: Where they are kept.
        party: Name of this party.
    """

    def __init__(self, store: Store, party: str) -> None:
        self._store = store
        self._party = party
        self._events: dict[str, ReplayableStream[Event]] = {}

    def ask(self, entered: StoredSession, peer: Membership) -> None:
        """Leaves the decision on a proposal to an operator."""
        waiting = APPROVAL.of(entered.session, peer.party)
        self._store.save(replace(entered, state="waiting", waits=(waiting,)))
        log.info("approval-wanted", session=entered.session, peer=peer.party, action=waiting.ends_with)

    def require_undecided(self, kept: StoredSession, proposal: Proposal) -> None:
        """Checks that a session that is kept is a proposal, the same one, that waits for an operator.

        Raises:
            ComityError: It is another one, or it is over; where an operator ended it, why.
        """
        contract, peer = proposal.contract, proposal.peer
        same = stored_contract(kept)[0].hash == contract.hash and peer.model_dump(mode="json") in kept.peers
        if same and is_undecided(kept):
            return
        if same and kept.state == "refused":
            raise raised(kept.result)
        if same and kept.state == "cancelled":
            raise ended_by(self._party, "cancelled")
        raise ContractMismatch(
            "the session exists already, with another contract or ended",
            expected="a new id",
            received=contract.session,
            action="give the new session another id",
        )

    def waiting(self, session: str) -> StoredSession:
        """The proposal of an identifier.

        Raises:
            InvalidValue: None of that identifier waits for an operator.
        """
        kept = self._store.find(session)
        if kept is None or not is_undecided(kept):
            waiting = [each.session for each in self._store.ongoing() if is_undecided(each)]
            raise InvalidValue(
                f"session {session} does not wait for approval",
                expected=", ".join(waiting) or "one that waits for it; none does",
                received="no such session" if kept is None else kept.state,
                action="comity sessions lists them",
            )
        return kept

    def refusal(self, reason: str) -> PolicyRefusal:
        """What the initiator is told whose proposal an operator refuses."""
        return PolicyRefusal(
            f"{self._party}'s operator refuses the session",
            received=reason or None,
            action="ask them what they would agree to, and propose that as a new session",
        )

    def events(self, session: str) -> ReplayableStream[Event] | None:
        """What happens to a proposal, for observers; None where none of that identifier waits."""
        kept = self._store.find(session)
        if kept is None or not is_undecided(kept):
            return None
        if session not in self._events:
            events = self._events[session] = ReplayableStream[Event]()
            for waiting in kept.waits:
                events.append(began(waiting))
        return self._events[session]

    def take_events(self, session: str) -> ReplayableStream[Event] | None:
        """Hands over what observers follow, to the session's worker; None where there are none."""
        return self._events.pop(session, None)

    def drain(self) -> None:
        """Has observers go."""
        for events in self._events.values():
            events.close()


def is_undecided(kept: StoredSession) -> bool:
    """Whether a session is a proposal on which an operator of this node has to decide."""
    return any(each.reason == APPROVAL.name for each in kept.waits)
