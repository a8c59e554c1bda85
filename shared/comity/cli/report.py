"""`comity report`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from comity.cli.tables import show_json
from comity.errors import InvalidValue
from comity.ledger.charges import in_words
from comity.node.control_client import ControlClient
from comity.node.operating import NodeChoice, latest
from comity.node.state_reader import StateReader
from comity.protocol.registry import protocol
from comity.report import SessionReport, render
from comity.report.comparison import is_worse, verdict
from comity.session.events import Event
from comity.wire.v1 import control_pb2 as pb

_ON = {"running", "waiting"}
"""States of a session of which more may come."""


def write_report(session: str, out: Path | None, node: NodeChoice, *, as_json: bool) -> None:
    """Writes a session as an HTML page.

    Raises:
        InvalidValue: There is no such session, the page cannot be written, or what it takes is not installed.
    """
    with node.read() as reader:
        details = reader.details(session or latest(reader))
        events = list(_until_now(reader, details.summary))
    path = out or Path(f"{details.summary.session}.html")
    page = render(_report(details, events))
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidValue(
            f"{path} cannot be written", expected="a file", received=error.strerror, action="name another with --out"
        ) from error
    if as_json:
        show_json({"session": details.summary.session, "report": str(path)})
    else:
        print(f"the report is in {path}")  # noqa: T201


def _report(details: pb.SessionDetails, events: list[Event]) -> SessionReport:
    summary = details.summary
    result = json.loads(details.result) if details.result else {}
    compared = result.get("compared")
    # What a reader should know before anything else comes first.
    first = {"worth it": verdict(compared)} if compared is not None and is_worse(compared) else {}
    head = first | {
        "session": summary.session,
        "protocol": summary.protocol,
        "role": f"{summary.role} with {', '.join(summary.peers)}",
        "state": f"{summary.state}, {summary.rounds_finished} of {summary.rounds} rounds finished",
        "begun": f"{summary.begun.ToDatetime():%Y-%m-%d %H:%M:%S} UTC",
        "charged": in_words(details.charged).removesuffix(" charged"),
        "contract": details.contract_hash,
    }
    if compared is not None and not first:
        head["worth it"] = verdict(compared)
    for name, title in (("digest", "model digest"), ("ledger_verified", "ledger"), ("what", "ended with")):
        if name in result:
            head[title] = {True: "verified", False: "BROKEN"}.get(result[name], str(result[name]))
    return SessionReport(
        head,
        json.loads(details.contract),
        events,
        result.get("metrics", {}),
        protocol(summary.protocol).presentation.per_round,
        dict(details.bytes_sent),
        dict(details.bytes_received),
        compared,
    )


def _until_now(reader: ControlClient | StateReader, summary: pb.SessionSummary) -> Iterator[Event]:
    """What has happened; of a session that goes on, as much as its summary tells of."""
    if summary.state in _ON and not summary.rounds_finished:
        return
    for event in reader.watch(summary.session):
        yield event
        if summary.state in _ON and event.kind == "round-finished" and event.round >= summary.rounds_finished:
            return
