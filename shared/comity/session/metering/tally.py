"""What is metered: requests on the wire, and tallies of what was answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from comity.contract import Json
from comity.ledger.ledger import Units
from comity.ledger.numbers import Numbers
from comity.ledger.receipts import subject_of

NUMBER = "number"
"""The unit of what is announced: small requests by their numbers."""

BLOCK = 1000
"""How many numbers are announced, and reserved, at a time."""


@dataclass(frozen=True, slots=True)
class Wire:
    """What a metered call takes on the wire, for the role that answers it.

    Attributes:
        asked: Length of the request, in bytes.
        size: The length of an answer, in bytes.
        arrived: When the request came, on the monotonic clock.
    """

    asked: int
    size: Callable[[Any], int]
    arrived: float

    def ends(self, within_s: float) -> float | None:
        """When it is of no use any more, on the monotonic clock, by a deadline that counts from its arrival; 0 for never."""
        return self.arrived + within_s if within_s else None


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a metered call, for whoever made it.

    Attributes:
        value: What the role returned.
        asked: Length of the request on the wire, in bytes.
        answered: Length of the answer, in bytes.
    """

    value: Any
    asked: int
    answered: int


@dataclass(frozen=True)
class Tally:
    """What was answered and is not charged yet.

    Attributes:
        first: The first unit that is not charged yet.
        numbers: The numbers that were answered.
        asked: What the requests took on the wire, in bytes.
        answered: What the answers took, in bytes.
    """

    first: int
    numbers: Numbers
    asked: int
    answered: int

    @property
    def content(self) -> dict[str, Json]:
        """What both parties sign for."""
        numbers: list[Json] = [[first, last] for first, last in self.numbers.ranges]
        return {"first": self.first, "numbers": numbers, "asked": self.asked, "answered": self.answered}

    @property
    def subject(self) -> bytes:
        """The digest that statements quote."""
        return subject_of(self.content)

    def units(self, unit: str) -> Units:
        """What is charged for it."""
        return Units(unit, self.first, len(self.numbers))

    @classmethod
    def kept(cls, fields: Mapping[str, Any]) -> Tally:
        """What `content` was kept of."""
        return cls(fields["first"], Numbers(fields["numbers"]), fields["asked"], fields["answered"])


@dataclass(frozen=True)
class Metered:
    """What is metered in a session with one peer.

    Attributes:
        unit: What is charged, as the protocol calls it.
        asks: Egress kind of the requests.
        answers: Egress kind of the answers.
        bought: Most that is answered.
        credit: Most that is answered and not settled yet.
    """

    unit: str
    asks: str
    answers: str
    bought: int
    credit: int = 1000
