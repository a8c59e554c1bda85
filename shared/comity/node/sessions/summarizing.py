"""What a finished session is reported as, by what its party keeps of it."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from comity.contract import Contract, Json
from comity.errors import LedgerBroken
from comity.ledger.ledger import Entry, Ledger, bytes_by_kind
from comity.ledger.verification import verify
from comity.node.party import LocalParty
from comity.node.sessions.result import SessionResult
from comity.node.sessions.statement import cost, stated
from comity.privacy.leak_guard.verdict import Verdict
from comity.protocol.registry import protocol
from comity.session.outcome import Outcome

log = structlog.get_logger()


def summarize(contract: Contract, outcome: Outcome, party: LocalParty, wall_s: float) -> SessionResult:
    """The result of a session as a party has it, with what its ledger says of it, and what protected its samples."""
    ledger = party.store
    entries = list(ledger.entries(contract.session))
    judged = [Verdict.from_json(entry.fact.body) for entry in entries if entry.fact.matter == "judged"]
    return SessionResult(
        protocol=contract.protocol,
        session=contract.session,
        seed=contract.seed,
        rounds=contract.rounds,
        rounds_finished=party.rounds_finished(contract.session),
        digest=outcome.digest,
        metrics=outcome.metrics,
        wall_s=wall_s,
        bytes_sent=bytes_by_kind(entries, "sent"),
        bytes_received=bytes_by_kind(entries, "received"),
        ledger_verified=_holds(ledger, contract.session),
        preset=party.protection(contract),
        rows_held=sum(each.held_rows for each in judged),
        rows_judged=sum(each.rows for each in judged),
        cost=_cost(contract, outcome, party, entries),
    )


def _cost(contract: Contract, outcome: Outcome, party: LocalParty, entries: Sequence[Entry]) -> dict[str, Json] | None:
    """What a session costs; None where there is no price, or where a ledger that does not hold cannot say."""
    if contract.price is None:
        return None
    try:
        return cost(stated(contract, protocol(contract.protocol), party.name, outcome.metrics, entries))
    except LedgerBroken as error:
        log.warning("cost-unknown", session=contract.session, error=str(error))
        return None


def _holds(ledger: Ledger, session: str) -> bool:
    try:
        verify(ledger.chains(session), is_whole=False)
    except LedgerBroken:
        return False
    return True
