"""What the leak guard says of something that is to leave; importing it imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comity.contract import Json
from comity.errors import ReleaseRefused


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may leave of a model, an update or a gradient.

    Attributes:
        samples: Distinct samples behind it since the last release; 0 where no own sample is behind it.
        held: Rows that keep what was last sent of them, by layer; layers of which all leave are left out.
        rows: Rows that were judged.
        isolated: Most samples that combinations of rows would have shown in one layer.
        is_refused: Whether nothing of it may leave.
        alike: Of a model that a training begins with, a weight with rows that are nearly parallel; empty for none.
    """

    samples: int = 0
    held: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    isolated: int = 0
    is_refused: bool = False
    alike: str = ""

    @property
    def held_rows(self) -> int:
        """Rows that stay."""
        return sum(self.held.values())

    @property
    def is_empty(self) -> bool:
        """Whether every row that was judged stays."""
        return self.rows > 0 and self.held_rows == self.rows

    def require(self) -> None:
        """Checks that it may leave.

        Raises:
            ReleaseRefused: It may not. The message reaches the peers, so it does not say how many samples showed.
        """
        if self.is_refused:
            raise ReleaseRefused(
                "what was to leave would give samples away",
                expected="changes that many samples make together",
                received="rows that single samples made",
                action="use a narrower model, larger batches or longer periods, or buy fewer rounds: what is learned already changes "
                "by few samples; the node's ledger says more",
            )

    def to_json(self) -> dict[str, Json]:
        """The verdict as fields."""
        return {
            "samples": self.samples,
            "held": dict(self.held),
            "rows": self.rows,
            "isolated": self.isolated,
            "refused": self.is_refused,
            "alike": self.alike,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Verdict:
        """The verdict that fields tell of."""
        return cls(
            fields["samples"],
            dict(fields["held"]),
            fields["rows"],
            fields["isolated"],
            fields["refused"],
            fields["alike"],
        )
