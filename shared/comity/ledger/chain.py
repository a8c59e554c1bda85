"""How an entry follows the one before it, wherever entries are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from comity.contract import Json, canonical
from comity.ledger.ledger import GENESIS, Entry, Fact, Head

Clock = Callable[[], datetime]
"""Says what time it is, with its zone."""


def utc_now() -> datetime:
    """What time it is."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Tail:
    """What the next entry of a chain follows.

    Attributes:
        length: Entries so far.
        hash: Hash of the last one; of none, `GENESIS`.
        time: Time of the last one; of none, the empty text, which is before every time.
    """

    length: int = 0
    hash: str = GENESIS
    time: str = ""

    @classmethod
    def after(cls, entry: Entry) -> Tail:
        """The tail that an entry makes."""
        return cls(entry.index + 1, entry.hash, entry.time)

    @property
    def head(self) -> Head:
        """The same as what statements quote."""
        return Head(self.length, self.hash)

    def next(self, fact: Fact, now: datetime) -> Entry:
        """The entry that follows. Where the clock shows a time before the last entry's, it has the last entry's."""
        # Of one form, so that times sort as texts.
        time = max(self.time, now.astimezone(UTC).isoformat(timespec="microseconds"))
        if fact.body:
            fact = replace(fact, body=as_kept(fact.body))
        entry = Entry(self.length, fact, time, self.hash)
        return replace(entry, hash=entry.computed_hash())


def as_kept(value: Mapping[str, Json]) -> dict[str, Any]:
    """A JSON object as it comes back from where it is kept: a copy, with lists for tuples.

    Raises:
        TypeError: It holds something that JSON has no word for.
        ValueError: It holds NaN or an infinity.
    """
    kept: dict[str, Any] = json.loads(canonical(value))
    return kept
