"""What monitors are told of a node: its picture at the moment of the scrape, and what was measured since it started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Protocol, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from comity.node.monitoring.latencies import Latencies
from comity.node.sessions.overview import SeenState, SessionSummary
from comity.node.status import NodeStatus

DAY_S = 86400.0


class Monitored(Protocol):
    """A node whose metrics are served."""

    def status(self) -> NodeStatus:
        """One picture of it."""

    def certificates(self) -> Mapping[tuple[str, str], datetime]:
        """Until when certificates are good, by whose they are (`own`, `peer`, `operator`) and the name in them."""


class NodeCollector(Collector):
    """Reads a node's picture at each scrape.

    Args:
        node: The node.
    """

    def __init__(self, node: Monitored) -> None:
        self._node = node

    def describe(self) -> list[Metric]:
        """Nothing beforehand: a picture is taken when somebody asks for it."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One picture of the node."""
        status = self._node.status()
        about = {"party": status.party, "role": status.role, "version": status.version}
        yield InfoMetricFamily("comity_node", "Who this is.", value=about)
        yield _gauge("start_time_seconds", "When the node started, in seconds since 1970.", status.started.timestamp())
        yield from _sessions(status)
        yield from _crossed(status)
        yield from _disk(status)
        yield from _privacy(status)
        yield _queues(status.queues)
        yield self._certificates()

    def _certificates(self) -> Metric:
        found = GaugeMetricFamily(
            "comity_certificate_days_left",
            "Days until a certificate expires: this node's own, a trusted peer's, an operator's.",
            labels=["whose", "party"],
        )
        now = datetime.now(UTC)
        for (whose, party), until in self._node.certificates().items():
            found.add_metric([whose, party], (until - now).total_seconds() / DAY_S)
        return found


def registry_of(node: Monitored) -> tuple[CollectorRegistry, Latencies]:
    """What is served of a node, and what measures for it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(node))
    ProcessCollector(registry=registry)
    return registry, Latencies(registry)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"comity_{name}", what, value=value)


def _sessions(status: NodeStatus) -> Iterator[Metric]:
    states = Counter(each.state for each in status.sessions)
    by_state = GaugeMetricFamily("comity_sessions", "Sessions that the node keeps, by state.", labels=["state"])
    for state in get_args(SeenState):
        by_state.add_metric([state], states[state])
    yield by_state
    yield _gauge("sessions_counted", "Sessions that count against the most at a time.", status.counted)
    yield _gauge("sessions_limit", "Most sessions at a time, by policy.", status.max_sessions)
    waits = Counter(wait.reason for each in status.sessions for wait in each.waits)
    waiting = GaugeMetricFamily("comity_sessions_waiting", "What sessions wait for.", labels=["reason"])
    for reason in sorted({"approval", "data", "peer-away"} | set(waits)):
        waiting.add_metric([reason], waits[reason])
    yield waiting
    yield _rounds(status.sessions)


def _rounds(sessions: tuple[SessionSummary, ...]) -> Metric:
    finished: Counter[str] = Counter()
    for each in sessions:
        finished[each.protocol] += each.rounds_finished
    rounds = CounterMetricFamily("comity_rounds", "Rounds that are finished, of all sessions.", labels=["protocol"])
    for protocol, number in sorted(finished.items()):
        rounds.add_metric([protocol], number)
    return rounds


def _crossed(status: NodeStatus) -> Iterator[Metric]:
    crossed = CounterMetricFamily(
        "comity_bytes", "Bytes that left and came in all sessions, by egress kind.", labels=["direction", "kind"]
    )
    for direction, kinds in (("sent", status.bytes_sent), ("received", status.bytes_received)):
        for kind, size in sorted(kinds.items()):
            crossed.add_metric([direction, kind], size)
    yield crossed
    yield CounterMetricFamily("comity_ledger_entries", "Entries of the ledger.", value=status.entries)


def _disk(status: NodeStatus) -> Iterator[Metric]:
    disk = status.disk
    yield _gauge("disk_used_bytes", "What the sessions' blobs and records take.", disk.used)
    yield _gauge("disk_promised_bytes", "What the sessions that are not over may take in all.", disk.promised)
    yield _gauge("disk_free_bytes", "What may still be kept: what the quota, or the disk, leaves.", disk.free)
    if disk.quota is not None:
        yield _gauge("disk_quota_bytes", "Most that may be kept, by policy.", disk.quota)


def _privacy(status: NodeStatus) -> Iterator[Metric]:
    budget = status.privacy
    yield _gauge("privacy_epsilon_spent", "Epsilon that sessions have spent on this node's samples.", budget.spent)
    if budget.limit is not None:
        yield _gauge("privacy_epsilon_limit", "Most epsilon that they may spend, by policy.", budget.limit)
        left = max(0.0, budget.limit - budget.spent)
        yield _gauge("privacy_epsilon_left", "Epsilon that sessions may still spend.", left)


def _queues(queues: Mapping[str, int]) -> Metric:
    waiting = GaugeMetricFamily(
        "comity_queued_requests", "Requests that wait for their turn in an active session.", labels=["session"]
    )
    for session, number in sorted(queues.items()):
        waiting.add_metric([session], number)
    return waiting
