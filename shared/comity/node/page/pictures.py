"""What the page shows, as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from comity.ledger.ledger import Crossed, Entry
from comity.node.sessions.kept import contract_of
from comity.node.sessions.overview import SessionDetails, SessionSummary
from comity.node.status import NodeStatus
from comity.protocol.curves import besides, curves_of_rounds, curves_of_statement, metrics_so_far
from comity.protocol.presentation import Summary
from comity.session.events import Event


class Watched(Protocol):
    """The node as the page sees it."""

    def status(self) -> NodeStatus:
        """One picture of the node at this moment."""

    def details(self, session: str) -> SessionDetails:
        """One session."""

    def history(self, session: str) -> list[Event]:
        """What is left to tell of a session."""

    def crossed_today(self) -> Sequence[Crossed]:
        """What left and came since midnight, UTC."""


def node_picture(node: Watched) -> dict[str, Any]:
    """A node at this moment, in parts that change at different times."""
    status = node.status()
    return {
        "node": {
            "party": status.party,
            "role": status.role,
            "version": status.version,
            "address": status.address,
            "started": status.started.isoformat(timespec="seconds"),
            "protocols": status.protocols,
        },
        "room": {
            "sessions": {"used": status.counted, "limit": status.max_sessions},
            "epsilon": {"used": status.privacy.spent, "limit": status.privacy.limit},
            # What is free changes with everything else that the disk is for.
            "disk": {"used": status.disk.used, "promised": status.disk.promised, "limit": status.disk.quota},
            "queued": sum(status.queues.values()),
        },
        "sessions": [_summary(each) for each in status.sessions],
        "today": [each._asdict() for each in node.crossed_today()],
        "ledger": {"entries": status.entries, "tail": [_line(each) for each in status.tail]},
    }


def session_picture(node: Watched, session: str) -> dict[str, Any]:
    """A session at this moment: its rounds as curves, what it came to, what crossed.

    Raises:
        InvalidValue: There is none of that identifier.
    """
    details, events = node.details(session), node.history(session)
    contract, definition = contract_of(details.contract)
    result: Mapping[str, Any] = details.result
    metrics = result.get("metrics") or metrics_so_far(definition, contract, details.summary.role, events)
    statement = definition.presentation.per_round
    curves = curves_of_rounds(events)
    stated = besides(curves_of_statement(statement, metrics), curves)
    return {
        **_summary(details.summary),
        "contract_hash": details.contract_hash,
        "terms": details.contract,
        "curves": [_finite(each.to_json()) for each in curves],
        "statement": {
            "title": statement.title if statement is not None else "",
            "curves": [_finite(each.to_json()) for each in stated],
        },
        "outcome": _outcome(events, metrics),
        "ended": {name: result[name] for name in ("what", "action") if name in result},
        "sent": details.bytes_sent,
        "received": details.bytes_received,
        "charged": details.charged,
    }


def _summary(summary: SessionSummary) -> dict[str, Any]:
    return {**asdict(summary), "waits": [asdict(each) for each in summary.waits]}


def _line(entry: Entry) -> dict[str, Any]:
    fact = entry.fact
    names = ("matter", "session", "peer", "direction", "kind", "size")
    return {"time": entry.time, "units": str(fact.units), "hash": entry.hash} | {
        name: getattr(fact, name) for name in names
    }


def _outcome(events: Sequence[Event], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What people compare; empty while a session goes on."""
    said: Any = next((each.fields["summary"] for each in reversed(events) if each.kind == "session-finished"), None)
    if said is None:
        return {}
    summary = Summary.from_json(said)
    rows = [
        {"title": each.title, "kind": each.kind, "value": metrics[each.field], "is_it": each.field == summary.outcome}
        for each in summary.columns
        if isinstance(metrics.get(each.field), int | float)
    ]
    return {"title": summary.title, "rows": _finite(rows)}


def _finite(value: Any) -> Any:
    """The same without numbers that JSON cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
