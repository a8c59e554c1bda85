"""The page: one HTML file that needs nothing else, with its curves as SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from comity.errors import InvalidValue
from comity.protocol.presentation import Column, PerRoundTable, Summary
from comity.report.comparison import comparison_table
from comity.report.curves import Curve, draw
from comity.report.numbers import number, size
from comity.report.tested import tested_tables
from comity.session.events import Event


@dataclass(frozen=True, slots=True)
class SessionReport:
    """All that a page shows of a session.

    Attributes:
        head: What it is: its identifier, protocol, role, peers, state and the like, by name, in order.
        contract: What was agreed.
        events: What happened, in order; of these its rounds and its end are shown.
        metrics: Of its result; empty while there is none.
        statement: Which of them say what each round came to for whom.
        sent: Bytes that left, by egress kind.
        received: Bytes that came, by egress kind.
        compared: What the party would have had alone, beside what it has; None where nobody looked.
    """

    head: Mapping[str, str]
    contract: Mapping[str, Any]
    events: Sequence[Event]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    statement: PerRoundTable | None = None
    sent: Mapping[str, int] = field(default_factory=dict)
    received: Mapping[str, int] = field(default_factory=dict)
    compared: Mapping[str, Any] | None = None


def render(report: SessionReport) -> str:
    """The page as HTML.

    Raises:
        InvalidValue: What it takes is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - extra `report`
        from markupsafe import Markup  # noqa: PLC0415
    except ImportError as error:
        raise InvalidValue(
            "a report needs more than is installed",
            expected="the extra report",
            received=error.name,
            action="pip install 'comity[report]'",
        ) from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("comity.report").joinpath("page.html").read_text(encoding="utf-8"))
    curves = _of_rounds(report.events)
    stated = _of_statement(report.statement, report.metrics)
    summary = _summary(report.events)
    compared = [] if report.compared is None else [comparison_table(report.compared)]
    return template.render(
        title=f"Session {report.head['session']}",
        head=report.head,
        outcome_title="" if summary is None else summary.title,
        outcome=[] if summary is None else _outcome(summary, report.metrics),
        tested=[*compared, *([] if summary is None else tested_tables(summary, report.metrics))],
        pictures=[Markup(draw(each)) for each in curves],  # noqa: S704 - drawn here, its texts escaped
        stated_title=report.statement.title if report.statement is not None else "",
        stated=[Markup(draw(each)) for each in stated],  # noqa: S704
        crossed=[
            (kind, size(report.sent.get(kind, 0)), size(report.received.get(kind, 0)))
            for kind in sorted({*report.sent, *report.received})
        ],
        contract=json.dumps(report.contract, indent=2),
    )


def _of_rounds(events: Sequence[Event]) -> list[Curve]:
    """A curve for each number that this party's rounds have."""
    columns = _columns(events)
    rounds = [each for each in events if each.kind == "round-finished"]
    numbers = [each.round for each in rounds]
    curves = []
    for column in columns:
        lines = _lines([each.fields.get(column.field) for each in rounds])
        if any(value is not None for line in lines.values() for value in line):
            curves.append(Curve(column.title, column.kind, numbers, lines))
    return curves


def _lines(values: Sequence[Any]) -> dict[str, list[float | None]]:
    """The line of a number, or one for each class."""
    names = list(dict.fromkeys(name for each in values if isinstance(each, Mapping) for name in each))
    if not names:
        return {"": [_value(each) for each in values]}
    return {name: [_value(each.get(name)) if isinstance(each, Mapping) else None for each in values] for name in names}


def _columns(events: Sequence[Event]) -> list[Column]:
    for event in events:
        if event.kind == "session-started":
            listed: Any = event.fields["columns"]
            return [Column(**each) for each in listed]
    return []


def _of_statement(statement: PerRoundTable | None, metrics: Mapping[str, Any]) -> list[Curve]:
    """A curve for each number that the statement has, with a line for each party."""
    if statement is None:
        return []
    parties = metrics.get(statement.parties)
    curves = []
    for column in statement.columns_of(metrics):
        by_round = metrics.get(column.field)
        # Words make no curve.
        if column.kind == "text" or not by_round:
            continue
        rounds = metrics.get(statement.rounds) or range(1, len(by_round) + 1)
        lines = {"": by_round} if parties is None else dict(zip(parties, zip(*by_round, strict=True), strict=True))
        values = {name: [_value(each) for each in line] for name, line in lines.items()}
        curves.append(Curve(column.title, column.kind, list(rounds), values))
    return curves


def _summary(events: Sequence[Event]) -> Summary | None:
    """What people compare; None while a session goes on."""
    for event in reversed(events):
        if event.kind == "session-finished":
            said: Any = event.fields["summary"]
            return Summary.from_json(said)
    return None


def _outcome(summary: Summary, metrics: Mapping[str, Any]) -> list[tuple[str, str, float, bool]]:
    """For each of the metrics that people compare its title, value, share of the greatest, and whether it is the outcome."""
    shown = [(each, value) for each in summary.columns if (value := _value(metrics.get(each.field))) is not None]
    most = max((value for _, value in shown), default=0.0) or 1.0
    return [
        (each.title, number(value, each.kind), max(0.0, value / most), each.field == summary.outcome)
        for each, value in shown
    ]


def _value(value: object) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
