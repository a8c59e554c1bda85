"""How an entry follows the one before it, wherever entries are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from comity.contract import Json, canonical
from comity.errors import UnknownSession
from comity.ledger.ledger import GENESIS, Entry, Fact, Head, hash_of

Clock = Callable[[], datetime]
"""Says what time it is, with its zone."""


def utc_now() -> datetime:
    """What time it is."""
    return datetime.now(UTC)


def as_time(moment: datetime) -> str:
    """A moment as it is kept: UTC, ISO 8601, of one form, so that moments sort as texts."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True)
class Tail:
    """What the next entry of a chain follows.

    Attributes:
        length: Entries so far.
        hash: Hash of the last one; of none, `GENESIS`.
        time: Time of the last one; of none, the empty text, which is before every time.
        ended: Whether the chain has ended; nothing follows then.
    """

    length: int = 0
    hash: str = GENESIS
    time: str = ""
    ended: bool = False

    @classmethod
    def after(cls, entry: Entry) -> Tail:
        """The tail that an entry makes."""
        return cls(entry.index + 1, entry.hash, entry.time, entry.fact.matter == "ended")

    @property
    def head(self) -> Head:
        """The same as what statements quote."""
        return Head(self.length, self.hash)

    def next(self, fact: Fact, now: datetime) -> Entry:
        """The entry that follows. Where the clock shows a time before the last entry's, it has the last entry's."""
        time = max(self.time, as_time(now))
        if fact.body:
            fact = replace(fact, body=as_kept(fact.body))
        return Entry(self.length, fact, time, self.hash, hash_of(self.length, fact, time, self.hash))


def closed(fact: Fact) -> UnknownSession:
    """The error for a caller who has something to record in a session that has ended."""
    return UnknownSession(
        f"session {fact.session} with {fact.peer} has ended here, and its ledger takes nothing more",
        expected="an active session",
        received=f"{fact.matter} {fact.kind or fact.subject}".strip(),
        action="begin a new session",
    )


def as_kept(value: Mapping[str, Json]) -> dict[str, Any]:
    """A JSON object as it comes back from where it is kept: a copy, with lists for tuples.

    Raises:
        TypeError: It holds something that JSON has no word for.
        ValueError: It holds NaN or an infinity.
    """
    kept: dict[str, Any] = json.loads(canonical(value))
    return kept
