"""One picture of a running node, from which its operator's service, `--json`, metrics, pages and reports read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from comity import version
from comity.blobs.blob_store import BlobStore
from comity.ledger.ledger import Entry
from comity.node.party import LocalParty
from comity.node.sessions.budget import spent
from comity.node.sessions.overview import SessionSummary, summarized
from comity.node.sessions.room import bytes_free, promised
from comity.protocol.registry import usable_for
from comity.store.store import Store

TAIL = 10
"""Entries of the ledger that a picture shows."""


@dataclass(frozen=True, slots=True)
class Disk:
    """What the sessions' blobs and records take.

    Attributes:
        used: What is there, in bytes.
        promised: What the sessions that are not over may take in all, in bytes.
        free: What may still be kept, in bytes: what the quota, or the disk, leaves.
        quota: Most that may be kept, in bytes; None for what the disk holds.
    """

    used: int = 0
    promised: int = 0
    free: int = 0
    quota: int | None = None


@dataclass(frozen=True, slots=True)
class PrivacyBudget:
    """What the sessions spend of it.

    Attributes:
        spent: ε that sessions have spent in all.
        limit: Most that they may; None for no limit.
    """

    spent: float = 0.0
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node at one moment.

    Attributes:
        party: Name of its party.
        role: What it does.
        version: Version of the installation.
        pid: Number of its process.
        address: Where peers reach it; empty for a node that only asks.
        state_dir: What it keeps.
        started: When it started, UTC.
        uptime_s: For how long it has run, in seconds.
        protocols: Protocols that it takes part in.
        sessions: Its sessions, oldest first.
        counted: How many of them count against `max_sessions`.
        max_sessions: Most sessions at a time.
        queues: Requests that wait for their turn, by active session.
        bytes_sent: Bytes that left in all sessions, by egress kind.
        bytes_received: Bytes that came, likewise.
        disk: What its sessions take on disk.
        privacy: What they spend of its privacy budget.
        entries: Length of its ledger.
        tail: The last entries of the ledger, oldest first.
        page: Where people look at it, with the token; empty where it serves no page.
        metrics: Where monitors read of it, `host:port`; empty for nowhere.
    """

    party: str
    role: str
    version: str
    pid: int
    address: str
    state_dir: Path
    started: datetime
    uptime_s: float
    protocols: tuple[str, ...]
    sessions: tuple[SessionSummary, ...]
    counted: int
    max_sessions: int
    queues: Mapping[str, int]
    bytes_sent: Mapping[str, int]
    bytes_received: Mapping[str, int]
    disk: Disk
    privacy: PrivacyBudget
    entries: int
    tail: tuple[Entry, ...]
    page: str = ""
    metrics: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """What of a node its store does not know.

    Attributes:
        role: What the node does.
        address: Where peers reach it.
        state_dir: What it keeps.
        started: When it started, UTC.
        worked_on: Active sessions.
        queues: Requests that wait for their turn, by session.
        failed: Why active sessions can do nothing more, by session.
        page: Where people look at it; empty for nowhere.
        metrics: Where monitors read of it; empty for nowhere.
    """

    role: str
    address: str
    state_dir: Path
    started: datetime
    worked_on: frozenset[str]
    queues: Mapping[str, int]
    failed: Mapping[str, str]
    page: str = ""
    metrics: str = ""


def status_of(party: LocalParty, running: Running) -> NodeStatus:
    """The picture of a node at this moment.

    Args:
        party: Its party.
        running: What its store does not know.

    Raises:
        StorageError: What it keeps cannot be read.
    """
    store, policy = party.store, party.config.policy
    ledger = store.summary(TAIL)
    return NodeStatus(
        party=party.name,
        role=running.role,
        version=version(),
        pid=os.getpid(),
        address=running.address,
        state_dir=running.state_dir,
        started=running.started,
        uptime_s=(datetime.now(UTC) - running.started).total_seconds(),
        protocols=tuple(each.name for each in usable_for(running.role)),
        sessions=tuple(summarized(store, running.worked_on, failed=running.failed)),
        counted=sum(kept.counts for kept in store.ongoing()),
        max_sessions=policy.max_sessions,
        queues=running.queues,
        bytes_sent=ledger.sent,
        bytes_received=ledger.received,
        disk=_disk(store, party.blobs, policy.max_state_bytes),
        privacy=PrivacyBudget(spent(store), policy.max_epsilon),
        entries=ledger.entries,
        tail=tuple(ledger.tail),
        page=running.page,
        metrics=running.metrics,
    )


def _disk(store: Store, blobs: BlobStore, quota: int | None) -> Disk:
    return Disk(blobs.used() + store.size(), promised(store), max(0, bytes_free(blobs, store, quota)), quota)
