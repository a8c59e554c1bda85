"""The page: one HTML file that needs nothing else, with its curves as SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any

from comity.errors import InvalidValue
from comity.protocol.curves import Curve, besides, curves_of_relations, curves_of_rounds, curves_of_statement
from comity.protocol.presentation import PartyTable, PerRoundTable, Relation, Summary
from comity.report.comparison import comparison_table
from comity.report.curves import picture
from comity.report.numbers import number, size
from comity.report.parties import party_table, totals
from comity.report.tested import TestedTable, tested_tables
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
        parties: Which of them say what the session came to for whom.
        relations: Which of them are drawn over which.
        sent: Bytes that left, by egress kind.
        received: Bytes that came, by egress kind.
        compared: What the party would have had alone, beside what it has; None where nobody looked.
        story: The session in a few sentences, each with whether it is bad news.
    """

    head: Mapping[str, str]
    contract: Mapping[str, Any]
    events: Sequence[Event]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    statement: PerRoundTable | None = None
    parties: PartyTable | None = None
    relations: Sequence[Relation] = ()
    sent: Mapping[str, int] = field(default_factory=dict)
    received: Mapping[str, int] = field(default_factory=dict)
    compared: Mapping[str, Any] | None = None
    story: Sequence[tuple[str, bool]] = ()

    @property
    def session(self) -> str:
        """Its identifier."""
        return self.head["session"]


def render(report: SessionReport) -> str:
    """The page of a session, as HTML.

    Raises:
        InvalidValue: What it takes is not installed.
    """
    curves = curves_of_rounds(report.events)
    stated = besides(curves_of_statement(report.statement, report.metrics), curves)
    summary = _summary(report.events)
    tables = [] if report.compared is None else [comparison_table(report.compared)]
    by_party = party_table(report.parties, report.metrics)
    return _filled(
        title=f"Session {report.session}",
        story=report.story,
        outcome_title="" if summary is None else summary.title,
        outcome=[] if summary is None else _outcome(summary, report.metrics),
        tables=[
            *([] if by_party is None else [by_party]),
            *tables,
            *([] if summary is None else tested_tables(summary, report.metrics)),
        ],
        notes=totals(report.parties, report.metrics),
        related=[picture(each) for each in curves_of_relations(report.relations, report.metrics)],
        pictures=[picture(each) for each in curves],
        stated_title=report.statement.title if report.statement is not None else "",
        stated=[picture(each) for each in stated],
        crossed=[
            (kind, size(report.sent.get(kind, 0)), size(report.received.get(kind, 0)))
            for kind in sorted({*report.sent, *report.received})
        ],
        no_samples="sample" not in {*report.sent, *report.received},
        head=report.head,
        contract=json.dumps(report.contract, indent=2),
    )


def render_together(reports: Sequence[SessionReport]) -> str:
    """A page that compares sessions: what each came to, and the curves that they have in common, in one picture each.

    Raises:
        InvalidValue: What it takes is not installed.
    """
    names = list(dict.fromkeys(name for each in reports for name in each.head if name != "session"))
    head = [(name, [each.head.get(name, "") for each in reports]) for name in names]
    outcomes: dict[str, list[str]] = {}
    for at, each in enumerate(reports):
        summary = _summary(each.events)
        for title, value, _, _ in [] if summary is None else _outcome(summary, each.metrics):
            outcomes.setdefault(f"{summary.title if summary else ''}: {title}", [""] * len(reports))[at] = value
    crossed = [
        (f"{kind}, {way}", [size(getattr(each, way).get(kind, 0)) for each in reports])
        for way in ("sent", "received")
        for kind in sorted({kind for each in reports for kind in getattr(each, way)})
    ]
    sessions = [each.session for each in reports]
    return _filled(
        title=f"{len(reports)} sessions compared",
        story=[(f"{each.session}: {line}", is_bad) for each in reports for line, is_bad in each.story[:2]],
        outcome_title="",
        outcome=[],
        tables=[
            TestedTable("what they came to", sessions, [*outcomes.items()]),
            TestedTable("what crossed the wire", sessions, crossed),
            TestedTable("what was agreed, and signed for", sessions, head),
        ],
        notes=[],
        related=[],
        pictures=[picture(each) for each in _common(reports)],
        stated_title="",
        stated=[],
        crossed=None,
        no_samples=False,
        head={},
        contract="",
    )


def _common(reports: Sequence[SessionReport]) -> list[Curve]:
    """The curves of one line that more than one session has, each session a line."""
    found: dict[str, list[tuple[str, Curve]]] = {}
    for each in reports:
        for curve in curves_of_rounds(each.events):
            if len(curve.lines) == 1:
                found.setdefault(curve.column.title, []).append((each.session, curve))
    together = []
    for curves in found.values():
        if len(curves) < 2:
            continue
        rounds = sorted({round for _, curve in curves for round in curve.rounds})
        lines = {}
        for session, curve in curves:
            (values,) = curve.lines.values()
            known = dict(zip(curve.rounds, values, strict=True))
            lines[session] = [known.get(round) for round in rounds]
        together.append(Curve(curves[0][1].column, rounds, lines))
    return together


def _filled(**values: Any) -> str:
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
    for name in ("related", "pictures", "stated"):
        # Drawn here, their texts escaped.
        values[name] = [{**asdict(each), "svg": Markup(each.svg)} for each in values[name]]  # noqa: S704
    return template.render(**values)


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
