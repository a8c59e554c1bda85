"""What an operator is shown, as messages."""

from __future__ import annotations

import json
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from datetime import datetime
from typing import TYPE_CHECKING

from comity.contract import Json
from comity.errors import InvalidValue
from comity.ledger.ledger import Entry
from comity.node.sessions.overview import SessionDetails, SessionSummary
from comity.session.events import Event
from comity.store.store import Waiting
from comity.wire.v1 import control_pb2 as pb

if TYPE_CHECKING:
    from comity.node.status import NodeStatus


def summary_to_proto(summary: SessionSummary) -> pb.SessionSummary:
    """Encodes a session's summary."""
    message = pb.SessionSummary(
        session=summary.session,
        protocol=summary.protocol,
        role=summary.role,
        peers=summary.peers,
        state=summary.state,
        rounds=summary.rounds,
        rounds_finished=summary.rounds_finished,
        waits=map(waiting_to_proto, summary.waits),
        why=summary.why,
    )
    message.begun.FromDatetime(datetime.fromisoformat(summary.begun))
    return message


def details_to_proto(details: SessionDetails) -> pb.SessionDetails:
    """Encodes all there is to know of a session."""
    return pb.SessionDetails(
        summary=summary_to_proto(details.summary),
        contract_hash=details.contract_hash,
        contract=json.dumps(details.contract),
        result=json.dumps(details.result) if details.result else "",
        bytes_sent=details.bytes_sent,
        bytes_received=details.bytes_received,
        charged=details.charged,
    )


def status_to_proto(status: NodeStatus) -> pb.NodeStatus:
    """Encodes the picture of a node."""
    message = pb.NodeStatus(
        node=pb.NodeDescription(
            party=status.party,
            role=status.role,
            version=status.version,
            address=status.address,
            protocols=status.protocols,
            sessions=[each.session for each in status.sessions],
            pid=status.pid,
            state_dir=str(status.state_dir),
        ),
        uptime_s=status.uptime_s,
        sessions=map(summary_to_proto, status.sessions),
        counted=status.counted,
        max_sessions=status.max_sessions,
        queues=status.queues,
        bytes_sent=status.bytes_sent,
        bytes_received=status.bytes_received,
        disk=pb.Disk(**asdict(status.disk)),
        privacy=pb.PrivacyBudget(**asdict(status.privacy)),
        entries=status.entries,
        tail=map(_line, status.tail),
        page=status.page,
        metrics=status.metrics,
    )
    message.started.FromDatetime(status.started)
    return message


def _line(entry: Entry) -> pb.LedgerLine:
    fact = entry.fact
    message = pb.LedgerLine(
        matter=fact.matter,
        session=fact.session,
        peer=fact.peer,
        direction=fact.direction or "",
        kind=fact.kind or "",
        subject=fact.subject,
        size=fact.size,
        hash=entry.hash,
    )
    message.time.FromDatetime(datetime.fromisoformat(entry.time))
    return message


def waiting_to_proto(waiting: Waiting) -> pb.Waiting:
    """Encodes what a session waits for."""
    fields = {each.name: getattr(waiting, each.name) for each in dataclass_fields(waiting) if each.name != "since"}
    message = pb.Waiting(**fields)
    message.since.FromDatetime(datetime.fromisoformat(waiting.since))
    return message


def event_to_proto(index: int, event: Event) -> pb.SessionEvent:
    """Encodes an event."""
    message = pb.SessionEvent(index=index, round=event.round, kind=event.kind, fields=json.dumps(event.fields))
    message.time.FromDatetime(event.time)
    return message


def fields_of(text: str) -> dict[str, Json]:
    """What an operator says, of a JSON object.

    Raises:
        InvalidValue: It is none.
    """
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidValue("a call's fields", expected="a JSON object", received=text[:100], action="send one")
    return found
