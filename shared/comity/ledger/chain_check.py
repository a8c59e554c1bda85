"""What must hold of every chain: nothing edited, removed, swapped or put in; and of the node's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from comity.errors import LedgerBroken
from comity.ledger.charges import broken
from comity.ledger.ledger import GENESIS, OWN, ChainName, Entry, Head

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class ChainCheck(ABC):
    """Takes the entries of a chain one by one.

    Args:
        name: The chain.
    """

    def __init__(self, name: ChainName) -> None:
        self.name = name
        self.hashes = [GENESIS]
        """The chain's hash at each length."""
        self.ended = False
        self._time = _LONG_AGO
        self._said: dict[tuple[object, ...], int] = {}

    def take(self, entry: Entry) -> None:
        """Checks the next entry.

        Raises:
            LedgerBroken: It is bad, or an earlier one turns out to be.
        """
        index = len(self.hashes) - 1
        if entry.index != index:
            raise self.broken(index, "is missing", expected=f"index {index}", received=f"index {entry.index}")
        self._check_hash(entry)
        self._check_time(entry)
        fact = entry.fact
        if self.ended:
            raise self.broken(entry, "comes after the end of the session", received=fact.matter)
        units = fact.units
        said = (
            fact.matter,
            fact.session,
            units.unit,
            units.first,
            units.count,
            fact.peer,
            fact.direction,
            fact.kind,
            fact.subject,
        )
        earlier = self._said.setdefault(said, index)
        if earlier != index:
            raise self.broken(entry, f"says again what entry {earlier} says")
        self.check_fact(entry)
        self.hashes.append(entry.hash)

    @abstractmethod
    def check_fact(self, entry: Entry) -> None:
        """Checks what an entry says.

        Raises:
            LedgerBroken: It cannot be.
        """

    def require_head(self, head: Head) -> None:
        """Checks that the chain ends where it should.

        Raises:
            LedgerBroken: It does not.
        """
        length = len(self.hashes) - 1
        if length < head.length:
            raise self.broken(length, "is missing", expected=f"{head.length} entries", received=f"{length}")
        if length > head.length:
            raise self.broken(
                head.length, "is beyond the head", expected=f"{head.length} entries", received=f"{length}"
            )
        if self.hashes[-1] != head.hash:
            raise self.broken(
                max(length - 1, 0), "is not the one in the head", expected=head.hash, received=self.hashes[-1]
            )

    def broken(self, entry: Entry | int, what: str, **values: object) -> LedgerBroken:
        """The error that names an entry."""
        return broken(entry, what, chain=self.name, **values)

    def _check_hash(self, entry: Entry) -> None:
        try:
            computed = entry.computed_hash()
        except (TypeError, ValueError, RecursionError) as error:
            raise self.broken(entry, "holds what no entry can hold", received=error) from error
        if computed != entry.hash:
            raise self.broken(entry, "was changed", expected=f"hash {entry.hash}", received=computed)
        if entry.previous != self.hashes[-1]:
            raise self.broken(
                entry,
                "does not follow the entry before it",
                expected=f"previous {self.hashes[-1]}",
                received=entry.previous,
            )

    def _check_time(self, entry: Entry) -> None:
        try:
            time = datetime.fromisoformat(entry.time)
            if time < self._time:
                raise self.broken(
                    entry, "is before the entry before it", expected=f"{self._time} or later", received=entry.time
                )
        except (TypeError, ValueError) as error:
            raise self.broken(entry, "has no time", expected="ISO 8601 with a zone", received=entry.time) from error
        self._time = time


@dataclass(slots=True)
class Registered:
    """What the node's own chain says of the others.

    Attributes:
        opened: Where each was begun.
        finals: The final heads of those that ended.
        seen: Those that turned out to be there.
    """

    opened: dict[ChainName, int] = field(default_factory=dict)
    finals: dict[ChainName, Head] = field(default_factory=dict)
    seen: set[ChainName] = field(default_factory=set)


class OwnChainCheck(ChainCheck):
    """The node's own chain: which others there are, and how they ended."""

    def __init__(self) -> None:
        super().__init__(OWN)
        self.registered = Registered()

    def check_fact(self, entry: Entry) -> None:
        """See `ChainCheck.check_fact`."""
        fact = entry.fact
        name = ChainName(fact.session, fact.peer)
        if fact.matter == "chain-opened" and name != OWN:
            self.registered.opened[name] = entry.index
        elif fact.matter == "chain-ended" and name in self.registered.opened:
            body: Mapping[str, Any] = fact.body
            self.registered.finals[name] = Head(body.get("length", 0), body.get("hash", ""))
        else:
            raise self.broken(
                entry,
                "does not belong there",
                expected="that a chain was opened, or one of these ended",
                received=f"{fact.matter} of {name}",
            )
