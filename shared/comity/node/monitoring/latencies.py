"""How long calls and rounds take, as histograms."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Histogram

from comity.contract import Contract, Json
from comity.node.watchers import SessionWatcher
from comity.session.events import Event
from comity.transport.call_watchers import Call

_CALL_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_ROUND_S = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)


class Latencies(SessionWatcher):
    """Measures.

    Args:
        registry: Where the histograms are.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Histogram(
            "comity_call_seconds",
            "Calls between nodes, by method and by how they ended: OK or a status code, the same at both sides.",
            ["side", "method", "ending"],
            buckets=_CALL_S,
            registry=registry,
        )
        self._rounds = Histogram(
            "comity_round_seconds",
            "Rounds of sessions, from the end of the one before.",
            ["protocol"],
            buckets=_ROUND_S,
            registry=registry,
        )
        self._lock = threading.Lock()
        self._since: dict[str, datetime] = {}

    def called(self, call: Call) -> None:
        """Takes note of a call."""
        self._calls.labels(call.side, call.method, call.ending).observe(call.seconds)

    def entered(self, contract: Contract, party: str) -> None:
        """Begins the first round; after a restart the one that is then worked on."""
        del party
        with self._lock:
            self._since[contract.session] = datetime.now(UTC)

    def happened(self, contract: Contract, event: Event) -> None:
        """Takes note of a round that is finished."""
        if event.kind != "round-finished":
            return
        with self._lock:
            began, self._since[contract.session] = self._since.get(contract.session), event.time
        if began is not None:
            self._rounds.labels(contract.protocol).observe((event.time - began).total_seconds())

    def ended(self, session: str, state: str, why: Mapping[str, Json]) -> None:
        """Forgets a session."""
        del state, why
        with self._lock:
            self._since.pop(session, None)
