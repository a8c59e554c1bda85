"""What happens in a session, for observers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

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


Observer = Callable[[Event], None]
"""Is told every event of a session, in order; must return soon and raise nothing."""


def ignore(event: Event) -> None:
    """An observer for sessions that are not watched."""
