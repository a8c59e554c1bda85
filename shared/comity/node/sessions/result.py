"""What `demo`, `simulate` and `run` report, in one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from comity.contract import Json


@dataclass(frozen=True, slots=True)
class SessionResult:
    """A finished session, as its asking party saw it.

    Attributes:
        protocol: Name of the protocol.
        session: Identifier of the session.
        seed: Public seed.
        rounds: Rounds that were bought.
        rounds_finished: Rounds that were run: fewer where the session came to its goal before.
        digest: Digest of the outcome's models, hexadecimal.
        metrics: The protocol's own numbers.
        wall_s: Wall time from the proposal to the end, in seconds.
        bytes_sent: Bytes that left, by egress kind.
        bytes_received: Bytes that came, by egress kind.
        ledger_verified: Whether the ledger's chains of the session hold.
        preset: What protected the party's samples: `guarded`, `dp` or `public`; None where it trains on none.
        rows_held: Rows of what it trained that its leak guard held back, of all sends together.
        rows_judged: Rows that were judged.
        compared: What the party would have had alone, beside what it has; None where that was not looked at.
        cost: What it costs by the price that was agreed on, and who owes it to whom; None where there is no price,
            or the ledger does not hold.
        processes: Process identifiers of the nodes that took part; empty in simulation.
    """

    protocol: str
    session: str
    seed: int
    rounds: int
    rounds_finished: int
    digest: str
    metrics: Mapping[str, Json]
    wall_s: float
    bytes_sent: Mapping[str, int]
    bytes_received: Mapping[str, int]
    ledger_verified: bool
    preset: str | None = "public"
    rows_held: int = 0
    rows_judged: int = 0
    compared: Mapping[str, Json] | None = None
    cost: Mapping[str, Json] | None = None
    processes: Sequence[int] = field(default=())

    def to_json(self) -> dict[str, Json]:
        """The result as a JSON object."""
        return asdict(self) | {"processes": list(self.processes)}


def with_comparison(result: SessionResult, compared: Mapping[str, Json] | None) -> SessionResult:
    """The same result, with what the party would have had alone."""
    return replace(result, compared=compared)


def with_metrics(result: SessionResult, metrics: Mapping[str, Json]) -> SessionResult:
    """The same result with other metrics."""
    return replace(result, metrics=metrics)
