"""The page: one HTML file that needs nothing else, with its curves as SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from comity.errors import InvalidValue
from comity.protocol.curves import besides, curves_of_rounds, curves_of_statement
from comity.protocol.presentation import PerRoundTable, Summary
from comity.report.comparison import comparison_table
from comity.report.curves import draw
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
    curves = curves_of_rounds(report.events)
    stated = besides(curves_of_statement(report.statement, report.metrics), curves)
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
