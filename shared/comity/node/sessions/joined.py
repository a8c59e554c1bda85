"""Sessions that many join: how one comes in, and when the session is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from comity.contract import Membership
from comity.errors import ComityError, ContractMismatch, StorageError, UnknownSession
from comity.node.party import LocalParty
from comity.protocol.roles import JoinedAcceptor
from comity.session.session_registry import AcceptedSession, ActiveSession
from comity.store.store import Store


@dataclass
class UntilOver:
    """A helping role that many join, at work until nothing is left to do.

    Attributes:
        role: The role.
        conclude: Called once, from the thread that works, when it is over.
        is_concluded: Whether that was.
    """

    role: JoinedAcceptor
    conclude: Callable[[], None]
    is_concluded: bool = False

    @property
    def _can_end(self) -> bool:
        # What could not be kept may be as it should after a restart.
        return not self.is_concluded and not isinstance(self.role.failure, StorageError)

    def advance(self) -> bool:
        """See `Steppable.advance`."""
        if self.role.advance():
            return True
        if self.role.over and self._can_end:
            self.is_concluded = True
            self.conclude()
        return False

    def fail(self, error: ComityError) -> None:
        """See `Steppable.fail`."""
        self.role.fail(error)

    def wakes_in(self) -> float | None:
        """See `JoinedAcceptor.wakes_in`."""
        return self.role.wakes_in() if self._can_end else None


def admit(party: LocalParty, active: ActiveSession, peer: Membership) -> AcceptedSession | None:
    """Lets an initiator join a session that is open; again, one that has joined it.

    Raises:
        RefusedError: The policy does not admit it, or it comes back as another than it left.
        ComityError: The role does not let it in.
    """
    contract, place = active.contract, active.place
    party.review(contract, place.own, (peer.party,), active=0)
    known = active.contexts.get(peer.party)
    if known is not None and known.peer != peer:
        raise ContractMismatch(
            f"{peer.party} has joined the session already, with another part in it",
            expected=f"{known.peer.samples} samples, key {known.peer.receipt_key[:16]}…",
            received=f"{peer.samples} samples, key {peer.receipt_key[:16]}…",
            action="come back as you left",
        )
    if known is None:
        # Before the role counts on it: it may begin with this one.
        _change_peers(party.store, contract.session, peer, is_in=True)
    joined = known or party.peer_context(place, peer, apart=True)
    try:
        active.worker.call(lambda: active.role.admit(joined))
    except ComityError:
        if known is None:
            place.gates.remove(joined.gate)
            _change_peers(party.store, contract.session, peer, is_in=False)
        raise
    active.contexts[peer.party] = joined
    active.left.discard(peer.party)
    return active.of(peer.party)


def not_open(session: str) -> UnknownSession:
    """The error for a caller who wants to join a session that is none."""
    return UnknownSession(
        "no such session is open here", received=session, action="ask the operator of this node for its identifier"
    )


def _change_peers(store: Store, session: str, peer: Membership, *, is_in: bool) -> None:
    """Keeps that a peer is in a session, or that it is not; what else is kept of the session may have changed."""
    fields = peer.model_dump(mode="json")
    with store.transaction():
        kept = store.find(session)
        if kept is not None:
            others = tuple(each for each in kept.peers if each != fields)
            store.save(replace(kept, peers=(*others, fields) if is_in else others))
