"""What was found of what a party trained to be sent: recorded in its ledger, and asked before a blob leaves."""

from __future__ import annotations

from comity.errors import PolicyRefusal
from comity.ledger.ledger import Fact, Ledger, Units
from comity.privacy.leak_guard.verdict import Verdict
from comity.session.events import Event, Observer, ignore
from comity.session.gate import Inspector, Outgoing
from comity.tensors import Blob


class Verdicts:
    """The verdicts of one session.

    Args:
        ledger: Where they are recorded.
        session: The session.
        peer: The peer in whose chain they stand; of several, the first.
        kinds: Egress kinds of which no blob leaves without one.
        observe: Is told of weights that look crafted.
    """

    def __init__(
        self, ledger: Ledger, session: str, peer: str, kinds: tuple[str, ...], observe: Observer = ignore
    ) -> None:
        self._ledger = ledger
        self._session = session
        self._peer = peer
        self._kinds = kinds
        self._observe = observe
        self._known: set[str] = set()

    @property
    def inspectors(self) -> dict[str, list[Inspector]]:
        """Who looks at what leaves, by kind."""
        return {kind: [self._inspect] for kind in self._kinds}

    def refuse(self, kind: str, units: Units, place: str, verdict: Verdict) -> None:
        """Records that something may not leave.

        Args:
            kind: Its egress kind.
            units: What it belongs to.
            place: Which it is among its kind in its units.
            verdict: What was found.
        """
        self._ledger.record(self._fact(kind, units, place, verdict))

    def warn(self, kind: str, units: Units, verdict: Verdict) -> None:
        """Says, and records, that what a training begins with looks as if somebody had made it to read samples off."""
        if verdict.alike:
            self._ledger.record(self._fact(kind, units, "start weights", verdict))
            what = f"rows of {verdict.alike} are nearly parallel in the weights that training begins with"
            action = "find out who made them so: rows that are alike show single samples"
            self._observe(Event("start-weights", units.first, {"what": what, "action": action}))

    def record(self, kind: str, units: Units, digest: bytes, verdict: Verdict) -> None:
        """Records that a blob may leave, before a peer can ask for it."""
        if self._kinds and digest.hex() not in self._known:
            self._ledger.record(self._fact(kind, units, digest.hex(), verdict))
            self._known.add(digest.hex())

    def may_leave(self, digest: bytes) -> bool:
        """Whether a blob was found to give nothing away, or came from a peer."""
        return not self._kinds or self._is_known(digest.hex())

    def _inspect(self, outgoing: Outgoing) -> None:
        if isinstance(outgoing.content, Blob) and not self._is_known(outgoing.content.hex):
            raise PolicyRefusal(
                f"privacy.preset keeps a {outgoing.kind} from leaving that was not judged",
                expected="a verdict of the leak guard",
                received=outgoing.content.hex,
                action="nothing was sent; a protocol has to have what it trains judged before it sends it",
            )

    def _is_known(self, subject: str) -> bool:
        if subject not in self._known:
            for entry in self._ledger.entries(self._session):
                fact = entry.fact
                judged = fact.matter == "judged" and not fact.body.get("refused")
                if judged or (fact.matter == "delivered" and fact.direction == "received"):
                    self._known.add(fact.subject)
        return subject in self._known

    def _fact(self, kind: str, units: Units, subject: str, verdict: Verdict) -> Fact:
        body = verdict.to_json()
        return Fact("judged", self._session, units, self._peer, kind=kind, subject=subject, body=body)
