"""Whether a session was worth it, in words and a table: what the party has beside what it would have had alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comity.report.numbers import number
from comity.report.tested import TestedTable
from comity.tasks.scores import metric

_MOST = 30


def verdict(compared: Mapping[str, Any]) -> str:
    """Whether help was worth it, in one line.

    Args:
        compared: What a result has as `compared`.
    """
    known = metric(compared["score"])
    alone, together = (number(compared[name], known.written) for name in ("alone", "together"))
    gain, spread = compared["gain"], compared["spread"]
    trainings = compared["seeds"]
    mean = f", the mean of {trainings} trainings" if trainings > 1 else ""
    said = f"{known.title} {together} together, {alone} alone{mean}"
    if spread is not None and abs(gain) <= spread:
        return f"no difference: {said}, which differ by {number(spread, known.written)} themselves"
    if gain < 0:
        return f"WORSE than alone: {said}"
    return f"better than alone: {said}" if gain > 0 else f"no difference: {said}"


def is_worse(compared: Mapping[str, Any]) -> bool:
    """Whether help made it worse, by more than trainings alone differ."""
    return bool(compared["gain"] < -(compared["spread"] or 0.0))


def worse_parts(compared: Mapping[str, Any]) -> list[str]:
    """The classes or targets that are worse than alone."""
    rows = (compared.get("by") or {}).get("rows", {})
    return [name for name, row in rows.items() if row["gain"] is not None and row["gain"] < 0]


def comparison_table(compared: Mapping[str, Any]) -> TestedTable:
    """What a party has and would have had: its score, and what there is for each class or target; the worst first of many."""
    known = metric(compared["score"])
    rows = [(known.title, _row(compared, known.written))]
    by = compared.get("by")
    title = f"alone ({compared['budget']}) and together"
    if by:
        part = metric(by["metric"])
        found = by["rows"]
        names = list(found)
        if len(names) > _MOST:
            lost = sorted(names, key=lambda name: (found[name]["gain"] is None, found[name]["gain"] or 0.0))[:_MOST]
            title = f"{title}; of {len(names)}, the {_MOST} that gained least"
            names = [name for name in names if name in lost]
        # "IoU by class" is one of a class here.
        called = part.title.partition(" by ")[0]
        rows += [(f"{called} of {name}", _row(found[name], part.written)) for name in names]
    return TestedTable(title, ("alone", "together", "gain"), rows)


def _row(values: Mapping[str, Any], written: Any) -> list[str]:
    gain = values["gain"]
    sign = "+" if gain is not None and gain > 0 else ""
    # What lies between two percentages is no percentage.
    said = number(gain, written).replace(" %", " points")
    return [number(values["alone"], written), number(values["together"], written), sign + said]
