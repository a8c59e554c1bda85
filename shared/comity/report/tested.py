"""What tests of models say, metric by metric and class by class, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comity.protocol.presentation import Summary
from comity.report.numbers import number
from comity.tasks.scores import Metric, metric

_MOST = 30
"""Classes that a table shows; of more, those that are lowest in what the session came to."""


@dataclass(frozen=True, slots=True)
class TestedTable:
    """A table of what tests say.

    Attributes:
        title: What it is about.
        columns: Whose numbers there are.
        rows: What each row is called, and its numbers as people read them.
    """

    __test__ = False

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


def tested_tables(summary: Summary, metrics: Mapping[str, Any]) -> list[TestedTable]:
    """The tables of a result: the numbers that a test has, then those for each class, label or target.

    Args:
        summary: What people compare, whose columns have a test each.
        metrics: The metrics of a result; the one that `summary.tested` names has the tests, by a column's field.
    """
    tests: Mapping[str, Mapping[str, Any]] = metrics.get(summary.tested) or {}
    shown = [(each, tests[each.field]) for each in summary.columns if tests.get(each.field)]
    if not shown:
        return []
    columns, outcome = [each.title for each, _ in shown], tests.get(summary.outcome) or shown[0][1]
    names = list(dict.fromkeys(name for _, test in shown for name in test))
    numbers: list[tuple[str, Sequence[str]]] = []
    tables: list[TestedTable] = []
    for name in names:
        known, values = metric(name), [test.get(name) for _, test in shown]
        if any(isinstance(each, Mapping) for each in values):
            tables.append(_by_class(known, columns, [each or {} for each in values], outcome.get(name) or {}))
        else:
            numbers.append((known.title, [number(each, known.written) for each in values]))
    return [TestedTable(f"{summary.title}, and what else the test says", columns, numbers), *tables]


def _by_class(
    known: Metric, columns: Sequence[str], values: Sequence[Mapping[str, Any]], outcome: Mapping[str, Any]
) -> TestedTable:
    names = list(dict.fromkeys(name for each in values for name in each))
    title = known.title if known.title.endswith(("by class", "by target")) else f"{known.title} by class"
    if len(names) > _MOST:
        worst = sorted(names, key=lambda name: (_order(outcome.get(name), known), names.index(name)))[:_MOST]
        title = f"{title}, the {_MOST} worst of {len(names)}"
        names = [name for name in names if name in worst]
    rows = [(name, [number(each.get(name), known.written) for each in values]) for name in names]
    return TestedTable(title, columns, rows)


def _order(value: Any, known: Metric) -> float:
    if not isinstance(value, int | float):
        return float("inf")
    return -value if known.falls else value
