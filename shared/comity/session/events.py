"""What happens in a session, for those who look on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from comity.contract import Json


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: What happened, for example `round-finished`; each protocol's README lists its own.
        round: Round it belongs to, from 1; 0 for the session as a whole.
        fields: What there is to know of it.
        time: When, UTC.
    """

    kind: str
    round: int = 0
    fields: Mapping[str, Json] = field(default_factory=dict)
    time: datetime = field(default_factory=_now)


@dataclass(frozen=True, slots=True)
class Column:
    """A number of a protocol's own that people look at, and how.

    Attributes:
        field: Its name among an event's or a result's fields.
        title: What it is called in a table.
        kind: How it is written; `share` is from 0 to 1 and written in percent.
    """

    field: str
    title: str
    kind: Literal["integer", "number", "share", "seconds"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What people compare when a session is over.

    Attributes:
        title: What the numbers are, for example `test accuracy`.
        columns: Metrics, all of one kind; those that a result lacks are left out.
        outcome: Field of the one that the session came to.
    """

    title: str
    columns: tuple[Column, ...]
    outcome: str


@dataclass(frozen=True, slots=True)
class Statement:
    """What a result says of every round: of each party at the one that helps many, and of oneself at the others.

    Attributes:
        title: What the rounds are stated for, for example `rewards`.
        columns: Metrics that are lists by round; where the result has `parties`, of lists by party.
        parties: Metric that lists the parties.
        rounds: Metric that lists the rounds; from 1 on where a result has none.
        sums: Metrics that list, by party, what a column comes to in all rounds; by the column's field.
    """

    title: str
    columns: tuple[Column, ...]
    parties: str = "parties"
    rounds: str = "rounds"
    sums: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """What people look at in a session.

    Attributes:
        columns: For each role, the fields of its `round-finished` events.
        summary: The metrics of a result.
    """

    columns: Mapping[str, tuple[Column, ...]]
    summary: Summary


Observer = Callable[[Event], None]
"""Is told every event of a session, in order; must return soon and raise nothing."""


def nobody(event: Event) -> None:
    """An observer for sessions that nobody looks at."""
