"""What each round of a session came to for whom, what it took on the wire, and who owes what by the price that was agreed on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comity.contract import Contract, Json
from comity.ledger.charges import charges_of
from comity.ledger.ledger import WHOLE, Entry, Units, in_round
from comity.protocol.curves import metrics_so_far
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.presentation import Column
from comity.session.events import finished_rounds
from comity.store.store import Store, StoredSession


@dataclass(slots=True)
class StatementLine:
    """Some units of a session, as far as one of its parties has to do with them.

    Attributes:
        units: The units: a round, or requests 101 to 200; the session as a whole.
        party: The party: one that helps, or one of many that join.
        said: The protocol's own numbers of them, by field.
        sent: Bytes that left this node for it.
        received: Bytes that came.
        charged: How many units are charged.
        payer: Who owes the amount; empty where nothing is owed.
        payee: Whom.
        amount: How much; None where nothing is owed, or this node cannot know how much.
    """

    units: Units
    party: str
    said: Mapping[str, Json] = field(default_factory=dict)
    sent: int = 0
    received: int = 0
    charged: int = 0
    payer: str = ""
    payee: str = ""
    amount: float | None = None


@dataclass(frozen=True)
class Statement:
    """What a session came to.

    Attributes:
        contract: Its contract.
        columns: What the protocol's numbers are.
        lines: What is stated, by units and party.
    """

    contract: Contract
    columns: Sequence[Column]
    lines: Sequence[StatementLine]

    @property
    def owed(self) -> dict[tuple[str, str], float]:
        """What each owes to each, by both."""
        sums: dict[tuple[str, str], float] = {}
        for line in self.lines:
            if line.payer and line.amount is not None:
                sums[line.payer, line.payee] = sums.get((line.payer, line.payee), 0.0) + line.amount
        return sums

    @property
    def is_whole(self) -> bool:
        """Whether this node knows all amounts."""
        return all(line.amount is not None for line in self.lines if line.payer)


def stated(
    contract: Contract,
    definition: ProtocolDefinition,
    party: str,
    metrics: Mapping[str, Any],
    entries: Iterable[Entry],
) -> Statement:
    """What a session came to, as one of its parties has it.

    Args:
        contract: Its contract.
        definition: Its protocol.
        party: The party.
        metrics: What it knows of the session's rounds.
        entries: What its ledger has of the session, in the order of each chain.

    Raises:
        LedgerBroken: Something is unpaid or unearned.
    """
    own_role = definition.acceptor if party in contract.acceptors else definition.initiator
    is_center = own_role == definition.center
    table = definition.presentation.per_round
    lines: dict[tuple[Units, str], StatementLine] = {}

    def line(units: Units, about: str) -> StatementLine:
        return lines.setdefault((units, about), StatementLine(units, about))

    entries = list(entries)
    for entry in entries:
        fact = entry.fact
        if fact.matter == "delivered" and fact.kind is not None:
            of = line(fact.units, fact.peer if is_center else party)
            if fact.direction == "sent":
                of.sent += fact.size
            else:
                of.received += fact.size
    peers: dict[tuple[Units, str], str] = {}
    for charge in charges_of(entries):
        about = charge.peer if is_center else party
        line(charge.units, about).charged += charge.units.count
        peers[charge.units, about] = charge.peer
    for (round, about), said in ({} if table is None else table.by_round(metrics)).items():
        line(in_round(round), about or party).said = said
    for key, peer in peers.items():
        _reckon(lines[key], contract, definition, (party, peer), table.share if table is not None else "")
    ordered = sorted(lines.values(), key=lambda each: (each.units != WHOLE, each.units.first, each.party))
    return Statement(contract, [] if table is None else table.columns_of(metrics), ordered)


def _reckon(
    line: StatementLine, contract: Contract, definition: ProtocolDefinition, parties: tuple[str, str], share: str
) -> None:
    """Adds who owes what for a line that is charged."""
    price, (own, peer) = contract.price, parties
    if price is None:
        return
    helps = own in contract.acceptors
    if price.rule == "each":
        line.payer, line.payee = (peer, own) if helps else (own, peer)
        line.amount = price.amount * line.charged
        return
    own_role = definition.acceptor if helps else definition.initiator
    line.payer, line.payee = (own, peer) if own_role == definition.center else (peer, own)
    part = line.said.get(share)
    line.amount = price.amount * part if isinstance(part, int | float) else None


def statement_of_session(
    store: Store, kept: StoredSession, contract: Contract, definition: ProtocolDefinition
) -> Statement:
    """What a session that a node keeps came to, or comes to so far.

    Args:
        store: What the node keeps.
        kept: The session.
        contract: Its contract.
        definition: Its protocol.
    """
    result: Mapping[str, Any] = kept.result
    metrics = result.get("metrics") or (result.get("kept") or {}).get("metrics") or {}
    role = str(kept.own["role"])
    if kept.is_on:
        metrics = metrics_so_far(definition, contract, role, finished_rounds(store.records(kept.session)))
    return stated(contract, definition, str(kept.own["party"]), metrics, store.entries(kept.session))


def cost(statement: Statement) -> dict[str, Json] | None:
    """What a session costs, as a result has it; None where no price was agreed on.

    Returns:
        `currency`, `rule`, `amount` of a unit, `owed`: who owes how much to whom, and `is_whole`: whether that is all.
    """
    price = statement.contract.price
    if price is None:
        return None
    owed: list[Json] = [{"from": payer, "to": payee, "amount": sum_} for (payer, payee), sum_ in statement.owed.items()]
    return {**price.model_dump(mode="json"), "owed": owed, "is_whole": statement.is_whole}
