"""The numbers of a session's rounds as curves, for whatever draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pkgutil import resolve_name
from typing import Any

from comity.contract import Contract, Json
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.presentation import Column, PerRoundTable, Relation, columns_of
from comity.session.events import Event

ROUND = Column("round", "round", "integer")
"""What most numbers are drawn over."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A number over rounds, or over another one.

    Attributes:
        column: What it is, and how it is written.
        rounds: The rounds, or the values of what it is drawn over.
        lines: The values, one for each of these, by the name of whose they are; None where there is none.
        over: What it is drawn over.
    """

    column: Column
    rounds: Sequence[float]
    lines: Mapping[str, Sequence[float | None]]
    over: Column = ROUND

    @property
    def is_logarithmic(self) -> bool:
        """Whether it is drawn on a logarithmic axis: it is meant to be, and every value is above 0."""
        return self.column.scale == "log" and all(
            value is None or value > 0 for line in self.lines.values() for value in line
        )

    def to_json(self) -> dict[str, Any]:
        """The curve as a JSON object."""
        return {
            **asdict(self.column),
            "unit": self.column.measured_in,
            "scale": "log" if self.is_logarithmic else "linear",
            "rounds": [*self.rounds],
            "lines": {name: [*values] for name, values in self.lines.items()},
        }


def curves_of_rounds(events: Sequence[Event]) -> list[Curve]:
    """A curve for each number that a party's rounds have.

    Args:
        events: What happened, from the session's beginning.
    """
    rounds = [each for each in events if each.kind == "round-finished"]
    numbers = [each.round for each in rounds]
    curves = []
    for column in _columns(events):
        lines = _lines([each.fields.get(column.field) for each in rounds])
        if any(value is not None for line in lines.values() for value in line):
            curves.append(Curve(column, numbers, lines))
    return curves


def curves_of_statement(statement: PerRoundTable | None, metrics: Mapping[str, Any]) -> list[Curve]:
    """A curve for each number that a statement of rounds has, with a line for each party."""
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
        if any(value is not None for line in values.values() for value in line):
            curves.append(Curve(column, list(rounds), values))
    return curves


def curves_of_relations(relations: Sequence[Relation], metrics: Mapping[str, Any]) -> list[Curve]:
    """A curve for each relation of which a result has numbers.

    Args:
        relations: What is drawn over what.
        metrics: The result's.
    """
    curves = []
    for each in relations:
        columns, over = columns_of(each.columns, metrics), metrics.get(each.over.field)
        names = [column.title if len(columns) > 1 else "" for column in columns]
        lines = {
            name: [_value(value) for value in metrics[column.field]]
            for name, column in zip(names, columns, strict=True)
        }
        # Two points make a line.
        if over and len(over) > 1 and any(value is not None for line in lines.values() for value in line):
            drawn = replace(columns[0], title=each.title, about=each.about)
            curves.append(Curve(drawn, [float(value) for value in over], lines, each.over))
    return curves


def besides(curves: Sequence[Curve], shown: Sequence[Curve]) -> list[Curve]:
    """Those of some curves that say more than curves that are shown: a party's own numbers may be in both."""
    known = {each.column.title for each in shown}
    return [each for each in curves if each.column.title not in known or len(each.lines) > 1]


def metrics_so_far(
    definition: ProtocolDefinition, contract: Contract, role: str, events: Sequence[Event]
) -> Mapping[str, Json]:
    """What a session's rounds come to while it goes on, at the party that will have its result; empty at others.

    Args:
        definition: Its protocol.
        contract: Its contract.
        role: What this party does in it.
        events: What happened, from its beginning.
    """
    statement = definition.presentation.per_round
    rounds = [each.fields for each in events if each.kind == "round-finished"]
    if statement is None or not statement.so_far or role != definition.center or not rounds:
        return {}
    metrics: Mapping[str, Json] = resolve_name(statement.so_far)(contract, rounds)
    return metrics


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


def _value(value: object) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
