"""What `demo`, `simulate` and `run` report, in one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from comity.contract import Contract, Json
from comity.errors import LedgerBroken
from comity.ledger.ledger import Ledger, bytes_by_kind
from comity.ledger.verification import verify
from comity.privacy.leak_guard.verdict import Verdict
from comity.privacy.settings import Preset
from comity.session.outcome import Outcome


@dataclass(frozen=True, slots=True)
class SessionResult:
    """A finished session, as its asking party saw it.

    Attributes:
        protocol: Name of the protocol.
        session: Identifier of the session.
        seed: Public seed.
        rounds: Rounds that were bought.
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
        processes: Process identifiers of the nodes that took part; empty in simulation.
    """

    protocol: str
    session: str
    seed: int
    rounds: int
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
    processes: Sequence[int] = field(default=())

    def to_json(self) -> dict[str, Json]:
        """The result as a JSON object."""
        return asdict(self) | {"processes": list(self.processes)}


def summarize(
    contract: Contract, outcome: Outcome, ledger: Ledger, wall_s: float, preset: Preset | None = "public"
) -> SessionResult:
    """The result of a session, with what its ledger says of it, and what protected the party's samples."""
    entries = list(ledger.entries(contract.session))
    judged = [Verdict.from_json(entry.fact.body) for entry in entries if entry.fact.matter == "judged"]
    return SessionResult(
        protocol=contract.protocol,
        session=contract.session,
        seed=contract.seed,
        rounds=contract.rounds,
        digest=outcome.digest,
        metrics=outcome.metrics,
        wall_s=wall_s,
        bytes_sent=bytes_by_kind(entries, "sent"),
        bytes_received=bytes_by_kind(entries, "received"),
        ledger_verified=_holds(ledger, contract.session),
        preset=preset,
        rows_held=sum(each.held_rows for each in judged),
        rows_judged=sum(each.rows for each in judged),
    )


def _holds(ledger: Ledger, session: str) -> bool:
    try:
        verify(ledger.chains(session), is_whole=False)
    except LedgerBroken:
        return False
    return True


def with_comparison(result: SessionResult, compared: Mapping[str, Json] | None) -> SessionResult:
    """The same result, with what the party would have had alone."""
    return replace(result, compared=compared)


def with_metrics(result: SessionResult, metrics: Mapping[str, Json]) -> SessionResult:
    """The same result with other metrics."""
    return replace(result, metrics=metrics)
