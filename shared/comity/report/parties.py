"""What a session came to for each of its parties, as a table and a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from comity.protocol.presentation import Column, PartyTable
from comity.report.numbers import number
from comity.report.tested import TestedTable
from comity.tasks.scores import metric


def party_table(table: PartyTable | None, metrics: Mapping[str, Any]) -> TestedTable | None:
    """The table of a result; None where it says nothing of each party.

    Args:
        table: Which metrics say so.
        metrics: The metrics of a result.
    """
    parties = [] if table is None else metrics.get(table.parties) or []
    columns = [] if table is None else _there(table.columns, metrics)
    if table is None or not parties or not columns:
        return None
    rows = [
        (str(party), [number(metrics[each.field][place], each.kind) for each in columns])
        for place, party in enumerate(parties)
    ]
    return TestedTable(table.title, [each.title for each in columns], rows)


def totals(table: PartyTable | None, metrics: Mapping[str, Any]) -> list[str]:
    """What a result says of all parties together, a line each."""
    there = [] if table is None else _there(table.totals, metrics)
    return [f"{each.title} {number(metrics[each.field], each.kind)}: {each.about}" for each in there]


def _there(columns: Sequence[Column], metrics: Mapping[str, Any]) -> list[Column]:
    """The columns that a result has, its scores as its kind of task has them written."""
    written = metric(str(metrics.get("score", "accuracy"))).written
    return [
        replace(each, kind=written) if each.kind == "score" else each
        for each in columns
        if metrics.get(each.field) is not None
    ]
