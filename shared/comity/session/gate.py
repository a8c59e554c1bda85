"""The egress gate: the one way out of a node.

Every outgoing message and blob passes it before it leaves: the thing itself, not what somebody calls it. What a message is,
its rule in the protos says; what neither the contract nor the node's policy allows stays here, and so does what an inspector
holds back.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from google.protobuf.message import Message

from comity import faults
from comity.blobs.session_blobs import Releaser, unchanged
from comity.contract import Contract
from comity.errors import PolicyRefusal
from comity.ledger.ledger import Direction, Fact, Ledger, Matter, Units
from comity.ledger.numbers import Numbers
from comity.session.egress_contents import carries, releases_in, require_known, require_unattached
from comity.session.egress_rules import CONTROL, UNRECORDED, Rule, rule_of
from comity.session.policy import Policy
from comity.tensors import Blob


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Something that is about to leave.

    Attributes:
        kind: Its egress kind, or `control` or `statement`.
        subject: Which one, unique among its kind in its units.
        units: What it belongs to: a round, or what else the protocol counts.
        peer: Party that it goes to.
        content: The message or the blob itself.
    """

    kind: str
    subject: str
    units: Units
    peer: str
    content: Message | Blob


ANNOUNCED, SETTLED = "announced", "settled"
"""Subjects of what is recorded for many small messages at a time."""

Inspector = Callable[[Outgoing], None]
"""Looks at what is about to leave, and raises a `PolicyRefusal` to hold it back."""


@dataclass(frozen=True)
class Guards:
    """How a node looks after what leaves, beyond contract and policy.

    Attributes:
        inspectors: Who looks at it, by kind.
        release: What is sent in place of what was made.
    """

    inspectors: Mapping[str, Sequence[Inspector]] = field(default_factory=dict)
    release: Releaser = unchanged

    def with_inspectors(self, more: Mapping[str, Sequence[Inspector]]) -> Guards:
        """These with others who look at what leaves."""
        kinds = self.inspectors.keys() | more.keys()
        both = {kind: (*self.inspectors.get(kind, ()), *more.get(kind, ())) for kind in kinds}
        return replace(self, inspectors=both)


class EgressGate:
    """Decides what leaves in one session with one peer, and records what is about to leave, what left and what came.

    Args:
        contract: The session's contract.
        policy: The node's own policy; a function where it may change meanwhile.
        ledger: Where it is recorded.
        peer: Party on the other side.
        guards: Who else is asked.
    """

    def __init__(
        self,
        contract: Contract,
        policy: Policy | Callable[[], Policy],
        ledger: Ledger,
        peer: str,
        guards: Guards | None = None,
    ) -> None:
        self._contract = contract
        self._policy: Callable[[], Policy] = (lambda: policy) if isinstance(policy, Policy) else policy
        self._ledger = ledger
        self._inspectors = (guards or Guards()).inspectors
        self.peer = peer
        self._lock = threading.Lock()
        self._delivered: Counter[Direction] = Counter()
        self._crossed: set[str] = set()
        # What is on its way, with its size: read once, kept in step.
        self._intended: dict[tuple[Units, str, str], int] = {}
        self._announced: dict[tuple[str, str], Numbers] = {}
        for entry in ledger.entries(contract.session, peer):
            fact = entry.fact
            if fact.kind is None or fact.direction is None:
                continue
            if fact.matter == "delivered":
                self._delivered[fact.direction] += fact.size
                self._crossed.add(fact.subject)
            if fact.subject == ANNOUNCED:
                self._add_announced(fact.kind, fact.units)
            elif fact.direction == "sent":
                place = (fact.units, fact.kind, fact.subject)
                if fact.matter == "intended":
                    self._intended[place] = fact.size
                else:
                    self._intended.pop(place, None)

    def delivered(self, direction: Direction) -> int:
        """Bytes that went one way so far."""
        with self._lock:
            return self._delivered[direction]

    def has_crossed(self, digest: bytes) -> bool:
        """Whether a blob went to the peer, or came from it: then it may be there still, and need not be sent again."""
        with self._lock:
            return digest.hex() in self._crossed

    def require_backed(self, message: Message) -> None:
        """Checks that enough samples stand behind what a message releases, before any blob goes along with it.

        Raises:
            PolicyRefusal: There are fewer than the policy wants.
        """
        for release in releases_in(message):
            self._policy().require_enough(release.samples)

    def is_backed(self, samples: int) -> bool:
        """Whether so many samples are enough for what would leave: a role need not make what could not be sent."""
        try:
            self._policy().require_enough(samples)
        except PolicyRefusal:
            return False
        return True

    def send(self, message: Message, request: Message | None = None, *, recorded: bool = True) -> None:
        """Lets a message out, once it is recorded that it is about to leave, and all that led to it is durable.

        Args:
            message: The message.
            request: What it answers, where it is an answer.
            recorded: Whether the ledger is told; not where there is no session with the peer yet.

        Raises:
            PolicyRefusal: It may not leave.
        """
        rule, kind = self._rule(message)
        require_known(message)
        require_unattached(message)
        self.require_backed(message)
        subject, units = rule.subject_of(message, request), rule.units_of(message, request)
        self._pass(Outgoing(kind, subject, units, self.peer, message))
        if rule.is_batched and kind not in UNRECORDED:
            self._require_announced(kind, units)
        elif recorded and kind not in UNRECORDED:
            self._intend(kind, subject, message.ByteSize(), units)
        self._ledger.sync()

    def send_blob(self, blob: Blob, kind: str, units: Units, *, size: int | None = None, alone: bool = True) -> None:
        """Lets a blob out, and records that it is about to leave.

        Args:
            blob: The blob.
            kind: What it is.
            units: What it belongs to.
            size: Length of what is sent for it, in bytes; its own where nothing is said.
            alone: Whether it leaves by itself, and not with a message that is still to pass.

        Raises:
            PolicyRefusal: It may not leave.
        """
        self._pass(Outgoing(kind, blob.hex, units, self.peer, blob))
        self._intend(kind, blob.hex, blob.size if size is None else size, units)
        if alone:
            self._ledger.sync()

    def announce(self, kind: str, units: Units) -> None:
        """Records that small messages of some units are about to leave, many at a time; see `EgressRule.batched`.

        Args:
            kind: Their egress kind.
            units: The units.

        Raises:
            PolicyRefusal: None of that kind may leave.
        """
        self._require_allowed(kind)
        if not self._is_announced(kind, units):
            self._record("intended", "sent", kind, ANNOUNCED, 0, units)
            self._add_announced(kind, units)

    def settle(self, kind: str, direction: Direction, units: Units, size: int) -> None:
        """Records what small messages that are charged together took.

        Args:
            kind: Their egress kind.
            direction: Whether they left or came.
            units: What is charged for them.
            size: What they took on the wire, in bytes.
        """
        if direction == "sent":
            self._record("intended", direction, kind, SETTLED, size, units)
        self._record("delivered", direction, kind, SETTLED, size, units)

    def deliver(self, message: Message, request: Message | None = None) -> None:
        """Records that the peer has a message; nothing where it was not to be recorded by itself."""
        rule, kind = self._rule(message)
        if kind not in UNRECORDED and not rule.is_batched:
            self._deliver(kind, rule.subject_of(message, request), rule.units_of(message, request))

    def deliver_blob(self, digest: bytes, kind: str, units: Units) -> None:
        """Records that the peer has a blob; nothing where it was not about to leave."""
        self._deliver(kind, digest.hex(), units)

    def deliver_all(self, units: Units, kind: str = "") -> None:
        """Records that the peer has everything that was about to leave in some units.

        Args:
            units: The units.
            kind: Egress kind of what it has; empty for all kinds.
        """
        with self._lock:
            waiting = [place for place in self._intended if units.covers(place[0]) and kind in {"", place[1]}]
        for at, what, subject in waiting:
            self._deliver(what, subject, at)

    def admit(self, message: Message, request: Message | None = None) -> None:
        """Records a message that came; nothing where it is recorded with others."""
        rule, kind = self._rule(message)
        if kind not in UNRECORDED and not rule.is_batched:
            subject, units = rule.subject_of(message, request), rule.units_of(message, request)
            self._record("delivered", "received", kind, subject, message.ByteSize(), units)

    def admit_blob(self, digest: bytes, kind: str, units: Units, size: int) -> None:
        """Records a blob that came, with the length of what came for it, in bytes."""
        self._record("delivered", "received", kind, digest.hex(), size, units)

    def _rule(self, message: Message) -> tuple[Rule, str]:
        """A message's rule, and its kind; one that could hold something of its kind, and does not, is of kind `control`."""
        rule = rule_of(message.DESCRIPTOR)
        return rule, rule.kind if not rule.is_recorded or carries(message, rule.kind) else CONTROL

    def _pass(self, outgoing: Outgoing) -> None:
        kind = outgoing.kind
        if not isinstance(outgoing.content, Message) or kind not in UNRECORDED:
            self._require_allowed(kind)
        for inspect in self._inspectors.get(kind, ()):
            inspect(outgoing)

    def _require_allowed(self, kind: str) -> None:
        if kind not in self._contract.egress:
            raise self._refusal("the contract", kind, ", ".join(self._contract.egress))
        policy = self._policy()
        if not policy.may_leave(kind):
            raise self._refusal("policy.egress", kind, ", ".join(policy.egress))

    def _require_announced(self, kind: str, units: Units) -> None:
        if not self._is_announced(kind, units):
            raise PolicyRefusal(
                f"{kind} of {units} was not announced",
                expected="units that the ledger says are about to leave",
                received=units,
                action="announce them first; nothing was sent",
            )

    def _is_announced(self, kind: str, units: Units) -> bool:
        with self._lock:
            announced = self._announced.get((kind, units.unit))
            return announced is not None and units.first in announced and units.last in announced

    def _add_announced(self, kind: str, units: Units) -> None:
        with self._lock:
            self._announced.setdefault((kind, units.unit), Numbers()).add(units.first, units.count)

    def _intend(self, kind: str, subject: str, size: int, units: Units) -> None:
        self._record("intended", "sent", kind, subject, size, units)
        with self._lock:
            self._intended[units, kind, subject] = size
        faults.point("transfer")

    def _deliver(self, kind: str, subject: str, units: Units) -> None:
        with self._lock:
            size = self._intended.pop((units, kind, subject), None)
        if size is not None:
            self._record("delivered", "sent", kind, subject, size, units)

    def _record(self, matter: Matter, direction: Direction, kind: str, subject: str, size: int, units: Units) -> None:
        fact = Fact(matter, self._contract.session, units, self.peer, direction, kind, subject, size)
        if self._ledger.record(fact) and matter == "delivered":
            with self._lock:
                self._delivered[direction] += size
                self._crossed.add(subject)

    def _refusal(self, by: str, kind: str, allowed: str) -> PolicyRefusal:
        return PolicyRefusal(
            f"{by} keeps {kind} from leaving", expected=allowed, received=kind, action="nothing was sent"
        )
