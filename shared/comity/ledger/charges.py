"""Rounds that were bought, by the statements that stand in a ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from comity.errors import LedgerBroken, ReceiptInvalid
from comity.ledger.exported import Line
from comity.ledger.ledger import Entry
from comity.ledger.receipts import SignedStatement, Statement, StatementKind

_TYPES: dict[str, type] = {
    name: int if name in {"round", "head_length"} else str for name in Statement.__dataclass_fields__
}


@dataclass(frozen=True, slots=True)
class Charge:
    """A round that was bought and delivered.

    Attributes:
        session: Session it belongs to.
        round: Round.
        peer: Party on the other side.
        subject: What both parties signed for.
    """

    session: str
    round: int
    peer: str
    subject: str


@dataclass(slots=True)
class _Request:
    entry: Entry
    subject: str
    is_charged: bool = False


@dataclass(slots=True)
class Charges:
    """Finds the rounds that are charged, one statement after the other.

    A round is charged when the one party's request and the other's receipt say the same of it.

    Attributes:
        charged: The rounds so far.
    """

    charged: list[Charge] = field(default_factory=list)
    _requests: dict[tuple[str, str], dict[int, _Request]] = field(default_factory=dict)

    def add(self, entry: Entry, statement: Statement) -> None:
        """Takes the next statement.

        Raises:
            LedgerBroken: A round is charged without being asked for, or asked for and not delivered.
        """
        fact = entry.fact
        rounds = self._requests.setdefault((fact.session, fact.peer), {})
        if statement.kind == "request":
            self._request(rounds, entry, statement)
        elif statement.kind == "receipt":
            self._receipt(rounds, entry, statement)

    def _request(self, rounds: dict[int, _Request], entry: Entry, statement: Statement) -> None:
        fact = entry.fact
        if fact.round in rounds:
            raise broken(entry, f"asks again for round {fact.round} of session {fact.session}")
        for round, earlier in rounds.items():
            if round < fact.round and not earlier.is_charged:
                raise broken(
                    earlier.entry,
                    f"leaves round {round} of session {fact.session} unearned",
                    expected=f"a receipt before round {fact.round}",
                    received="a request alone",
                )
        rounds[fact.round] = _Request(entry, statement.subject)

    def _receipt(self, rounds: dict[int, _Request], entry: Entry, statement: Statement) -> None:
        fact = entry.fact
        unpaid = f"leaves round {fact.round} of session {fact.session} unpaid"
        request = rounds.get(fact.round)
        if request is None:
            raise broken(entry, unpaid, expected="a request before the receipt", received="a receipt alone")
        if request.entry.fact.direction == fact.direction:
            raise broken(entry, unpaid, expected="a receipt by the other party", received="both by one")
        if request.subject != statement.subject:
            raise broken(entry, unpaid, expected=f"a receipt for {request.subject}", received=statement.subject)
        if request.is_charged:
            raise broken(entry, f"charges round {fact.round} of session {fact.session} twice")
        request.is_charged = True
        self.charged.append(Charge(fact.session, fact.round, fact.peer, statement.subject))


def rounds_charged(entries: Iterable[Line]) -> list[Charge]:
    """The rounds that were bought, in the order of their receipts.

    Raises:
        LedgerBroken: One is charged without being asked for, or asked for and not delivered when a later one begins.
    """
    charges = Charges()
    for entry in entries:
        if isinstance(entry, Entry) and entry.fact.matter == "receipt":
            charges.add(entry, statement_of(entry).statement)
    return charges.charged


def statement_of(entry: Entry) -> SignedStatement:
    """The statement that an entry holds; whether it is true, `verify` says.

    Raises:
        LedgerBroken: It holds something else.
    """
    body: Any = entry.fact.body
    try:
        signed = SignedStatement.from_json(body)
    except ReceiptInvalid as error:
        raise broken(entry, "holds a statement that cannot be read") from error
    for name, kind in _TYPES.items():
        value = getattr(signed.statement, name)
        if type(value) is not kind:
            raise broken(
                entry, f"holds a statement whose {name} cannot be read", expected=kind.__name__, received=value
            )
    if signed.statement.kind not in get_args(StatementKind):
        known = ", ".join(get_args(StatementKind))
        raise broken(entry, "holds a statement of no known kind", expected=known, received=signed.statement.kind)
    return signed


_ACTION = "keep the file as it is, and compare with the other party's: comity ledger compare"


def broken(entry: Line | int, what: str, *, expected: object = None, received: object = None) -> LedgerBroken:
    """The error that names an entry and says of it what is wrong."""
    index = entry if isinstance(entry, int) else entry.index
    return LedgerBroken(f"ledger entry {index} {what}", expected=expected, received=received, action=_ACTION)
