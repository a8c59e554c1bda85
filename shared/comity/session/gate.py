"""The egress gate: the one way out of a node."""

from __future__ import annotations

from comity.contract import Contract, EgressKind
from comity.errors import PolicyRefusal
from comity.session.ledger import Crossing, Direction, Ledger
from comity.session.policy import Policy


class EgressGate:
    """Decides what leaves in one session with one peer, and records what left and what came.

    Every outgoing blob and message passes `release`; what neither the contract nor the node's policy allows stays here.

    Args:
        contract: The session's contract.
        policy: The node's own policy.
        ledger: Where crossings are recorded.
        peer: Party on the other side.
    """

    def __init__(self, contract: Contract, policy: Policy, ledger: Ledger, peer: str) -> None:
        self._contract = contract
        self._policy = policy
        self._ledger = ledger
        self.peer = peer

    def release(self, kind: EgressKind, subject: str, size: int, *, round: int = 0) -> None:
        """Lets something out and records it.

        Args:
            kind: What it is.
            subject: Which one, unique among its kind in the round.
            size: Its length in bytes.
            round: Round it belongs to; 0 for the session as a whole.

        Raises:
            PolicyRefusal: It may not leave.
        """
        if kind not in self._contract.egress:
            raise self._refusal("the contract", kind, ", ".join(self._contract.egress))
        if not self._policy.may_leave(kind):
            raise self._refusal("policy.egress", kind, ", ".join(self._policy.egress))
        self._record("sent", kind, subject, size, round)

    def admit(self, kind: EgressKind, subject: str, size: int, *, round: int = 0) -> None:
        """Records something that came."""
        self._record("received", kind, subject, size, round)

    def _record(self, direction: Direction, kind: EgressKind, subject: str, size: int, round: int) -> None:
        self._ledger.record(Crossing(self._contract.session, round, direction, kind, subject, size, self.peer))

    def _refusal(self, by: str, kind: str, allowed: str) -> PolicyRefusal:
        return PolicyRefusal(
            f"{by} keeps {kind} from leaving", expected=allowed, received=kind, action="nothing was sent"
        )
