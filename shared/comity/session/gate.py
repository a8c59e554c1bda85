"""The egress gate: the one way out of a node.

Every outgoing blob and message passes `intend` before it leaves. What neither the contract nor the node's policy allows
stays here.
"""

from __future__ import annotations

import threading
from collections import Counter

from comity import faults
from comity.contract import Contract, EgressKind
from comity.errors import PolicyRefusal
from comity.ledger.ledger import Direction, Fact, Ledger, Matter, Units, in_round
from comity.session.policy import Policy


class EgressGate:
    """Decides what leaves in one session with one peer, and records what is about to leave, what left and what came.

    Args:
        contract: The session's contract.
        policy: The node's own policy.
        ledger: Where it is recorded.
        peer: Party on the other side.
    """

    def __init__(self, contract: Contract, policy: Policy, ledger: Ledger, peer: str) -> None:
        self._contract = contract
        self._policy = policy
        self._ledger = ledger
        self.peer = peer
        self._lock = threading.Lock()
        self._delivered: Counter[Direction] = Counter()
        # What is on its way, with its size: read once, kept in step.
        self._intended: dict[tuple[Units, EgressKind, str], int] = {}
        for entry in ledger.entries(contract.session, peer):
            fact = entry.fact
            if fact.kind is None or fact.direction is None:
                continue
            if fact.matter == "delivered":
                self._delivered[fact.direction] += fact.size
            if fact.direction == "sent":
                place = (fact.units, fact.kind, fact.subject)
                if fact.matter == "intended":
                    self._intended[place] = fact.size
                else:
                    self._intended.pop(place, None)

    def delivered(self, direction: Direction) -> int:
        """Bytes that went one way so far."""
        with self._lock:
            return self._delivered[direction]

    def intend(self, kind: EgressKind, subject: str, size: int, *, round: int = 0) -> None:
        """Lets something out, and records that it is about to leave.

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
        self._record("intended", "sent", kind, subject, size, round)
        with self._lock:
            self._intended[in_round(round), kind, subject] = size
        faults.point("transfer")

    def deliver(self, kind: EgressKind, subject: str, *, round: int = 0) -> None:
        """Records that the peer has what was about to leave; nothing where nothing was."""
        with self._lock:
            size = self._intended.pop((in_round(round), kind, subject), None)
        if size is not None:
            self._record("delivered", "sent", kind, subject, size, round)

    def deliver_all(self, round: int) -> None:
        """Records that the peer has everything that was about to leave in a round."""
        with self._lock:
            waiting = [place for place in self._intended if place[0] == in_round(round)]
        for _, kind, subject in waiting:
            self.deliver(kind, subject, round=round)

    def admit(self, kind: EgressKind, subject: str, size: int, *, round: int = 0) -> None:
        """Records something that came."""
        self._record("delivered", "received", kind, subject, size, round)

    def _record(
        self, matter: Matter, direction: Direction, kind: EgressKind, subject: str, size: int, round: int
    ) -> None:
        fact = Fact(matter, self._contract.session, in_round(round), self.peer, direction, kind, subject, size)
        if self._ledger.record(fact) and matter == "delivered":
            with self._lock:
                self._delivered[direction] += size

    def _refusal(self, by: str, kind: str, allowed: str) -> PolicyRefusal:
        return PolicyRefusal(
            f"{by} keeps {kind} from leaving", expected=allowed, received=kind, action="nothing was sent"
        )
