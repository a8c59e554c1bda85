"""What happens in a session, for observers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from comity.contract import Json
from comity.store.store import Record


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


def finished_rounds(records: Iterable[Record]) -> list[Event]:
    """The rounds that a journal says are finished, as they were told when they were."""
    return [
        Event("round-finished", each.round, each.fields, datetime.fromisoformat(each.time) if each.time else _now())
        for each in records
        if each.kind == "finished"
    ]


Observer = Callable[[Event], None]
"""Is told every event of a session, in order; must return soon and raise nothing."""


def ignore(event: Event) -> None:
    """An observer for sessions that are not watched."""
