"""`comity report`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from comity.cli.tables import cost_line, show_json
from comity.errors import InvalidValue
from comity.ledger.charges import in_words
from comity.node.control_client import ControlClient
from comity.node.operating import NodeChoice, latest
from comity.node.state_reader import StateReader
from comity.protocol.registry import protocol
from comity.report import SessionReport, render, render_together
from comity.report.comparison import is_worse, verdict
from comity.report.numbers import duration, size
from comity.session.events import Event
from comity.wire.v1 import control_pb2 as pb

_ON = {"running", "waiting"}
"""States of a session of which more may come."""


def write_report(sessions: Sequence[str], out: Path | None, node: NodeChoice, *, as_json: bool) -> None:
    """Writes a session as an HTML page, or several beside each other.

    Args:
        sessions: The sessions; the last one where none is named.
        out: Where the page goes; None for a name of its own.
        node: The node.
        as_json: Print where it is as JSON.

    Raises:
        InvalidValue: There is no such session, the page cannot be written, or what it takes is not installed.
    """
    with node.read() as reader:
        reports = [_read(reader, session) for session in sessions or [latest(reader)]]
    names = [each.session for each in reports]
    path = out or Path(f"{names[0] if len(names) == 1 else 'compared'}.html")
    page = render(reports[0]) if len(reports) == 1 else render_together(reports)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidValue(
            f"{path} cannot be written", expected="a file", received=error.strerror, action="name another with --out"
        ) from error
    if as_json:
        show_json({"session": names[0], "sessions": names, "report": str(path)})
    else:
        print(f"the report is in {path}")  # noqa: T201


def _read(reader: ControlClient | StateReader, session: str) -> SessionReport:
    details = reader.details(session)
    summary, contract = details.summary, json.loads(details.contract)
    result = json.loads(details.result) if details.result else {}
    head = {
        "session": summary.session,
        "protocol": summary.protocol,
        "role": f"{summary.role} with {', '.join(summary.peers)}",
        "state": f"{summary.state}, {summary.rounds_finished} of {summary.rounds} rounds finished",
        "begun": f"{summary.begun.ToDatetime():%Y-%m-%d %H:%M:%S} UTC",
        "charged": in_words(details.charged).removesuffix(" charged"),
    }
    if summary.waits:
        head["waits for"] = "; ".join(f"{each.waits_for} ({each.ends_with})" for each in summary.waits)
    head |= {title: _written(result[name]) for name, title in _OF_RESULT.items() if result.get(name) is not None}
    if result.get("cost") is not None:
        head["costs"] = cost_line(result["cost"])
    head |= {"contract hash": details.contract_hash, "written by": f"comity {version('comity')}"}
    presentation = protocol(summary.protocol).presentation
    return SessionReport(
        head,
        contract,
        list(_until_now(reader, summary)),
        result.get("metrics", {}),
        presentation.per_round,
        presentation.per_party,
        presentation.relations,
        dict(details.bytes_sent),
        dict(details.bytes_received),
        result.get("compared"),
        _story(details, contract, result),
    )


_OF_RESULT = {
    "digest": "model digest",
    "ledger_verified": "ledger",
    "preset": "privacy",
    "wall_s": "took",
    "what": "ended with",
}
"""What of a result a page says at its end, and what it is called there."""


def _written(value: object) -> str:
    if isinstance(value, float):
        return duration(value)
    return {True: "verified", False: "BROKEN"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _story(
    details: pb.SessionDetails, contract: Mapping[str, Any], result: Mapping[str, Any]
) -> list[tuple[str, bool]]:
    """The session in a few sentences, what a reader should know first of all first; each with whether it is bad news."""
    summary, compared = details.summary, result.get("compared")
    told: list[tuple[str, bool]] = []
    if "reason" in result:
        told.append((f"The session ended before its time ({summary.state}): {result.get('what', '')}.", True))
    if compared is not None:
        line = verdict(compared)
        told.append((f"{line[:1].upper()}{line[1:]}.", is_worse(compared)))
    title = summary.protocol.replace("_", " ")
    rounds = f"{summary.rounds_finished} of {summary.rounds} rounds"
    told.append((f"{title.capitalize()}, as {summary.role}, with {', '.join(summary.peers)}: {rounds}.", False))
    models = {name: each["name"] for name, each in contract["models"].items()}
    if models:
        (called, *others) = models.values()
        each = ", ".join(f"{model} ({name})" for name, model in models.items())
        said = f"Models: {each}" if others else f"Model {called}"
        told.append((f"{said}; {contract['task']['kind']}; seed {contract['seed']}.", False))
    sent, received = (sum(each.values()) for each in (details.bytes_sent, details.bytes_received))
    shown = "" if "sample" in {*details.bytes_sent, *details.bytes_received} else "; no sample crossed"
    told.append((f"{size(sent)} left this node, {size(received)} came{shown}.", False))
    if result.get("cost") is not None:
        told.append((f"It costs {cost_line(result['cost'])}.", False))
    return told


def _until_now(reader: ControlClient | StateReader, summary: pb.SessionSummary) -> Iterator[Event]:
    """What has happened; of a session that goes on, as much as its summary tells of."""
    if summary.state in _ON and not summary.rounds_finished:
        return
    for event in reader.watch(summary.session):
        yield event
        if summary.state in _ON and event.kind == "round-finished" and event.round >= summary.rounds_finished:
            return
