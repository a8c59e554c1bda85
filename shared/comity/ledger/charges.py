"""What was bought, by the statements that stand in a ledger."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from comity.errors import LedgerBroken, ReceiptInvalid
from comity.ledger.ledger import ChainName, Entry, Units
from comity.ledger.receipts import SignedStatement, Statement, StatementKind

_TYPES: dict[str, type] = {
    name: int if name in {"first", "count", "head_length"} else str for name in Statement.__dataclass_fields__
}


@dataclass(frozen=True, slots=True)
class Charge:
    """Units that were bought and delivered.

    Attributes:
        session: Session they belong to.
        units: The units: a round, or requests 101 to 200.
        peer: Party on the other side.
        subject: What both parties signed for.
    """

    session: str
    units: Units
    peer: str
    subject: str


class Ranges:
    """Ranges of one unit, of which no two overlap, in order."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._ranges: list[Units] = []

    def overlapping(self, units: Units) -> Units | None:
        """A range that was added and has some of these units; None where there is none."""
        at = bisect_right(self._firsts, units.first)
        return next((each for each in self._ranges[max(at - 1, 0) : at + 1] if each.overlaps(units)), None)

    def add(self, units: Units) -> None:
        """Adds a range that overlaps with none."""
        at = bisect_right(self._firsts, units.first)
        self._firsts.insert(at, units.first)
        self._ranges.insert(at, units)


@dataclass(slots=True)
class _Request:
    entry: Entry
    subject: str
    charge: Charge | None = None
    is_withdrawn: bool = False


@dataclass(slots=True)
class _Account:
    """What one party asked of another in one unit of a session.

    Attributes:
        ranges: What was asked for.
        requests: The requests, by what they ask for.
        unearned: Those without a receipt.
        stated: What the parties' other statements are about, by direction and kind.
    """

    ranges: Ranges = field(default_factory=Ranges)
    requests: dict[Units, _Request] = field(default_factory=dict)
    unearned: dict[Units, _Request] = field(default_factory=dict)
    stated: dict[tuple[str | None, str], Ranges] = field(default_factory=dict)


@dataclass(slots=True)
class Charges:
    """Finds what is charged, one statement after the other.

    Units are charged when the one party's request and the other's receipt say the same of them. A statement may be about
    many small ones; no two of a kind are about the same.

    Attributes:
        charged: The charges so far.
    """

    charged: list[Charge] = field(default_factory=list)
    _accounts: dict[tuple[str, str, str], _Account] = field(default_factory=dict)

    def add(self, entry: Entry, statement: Statement) -> None:
        """Takes the next statement.

        Raises:
            LedgerBroken: Units are charged without being asked for, asked for and not delivered, or stated twice.
        """
        fact, units = entry.fact, statement.units
        if units.first < 1 or units.count < 1 or not units.unit:
            raise broken(entry, "states something of no units", expected="at least one, from 1 on", received=units)
        account = self._accounts.setdefault((fact.session, fact.peer, units.unit), _Account())
        if statement.kind == "request":
            _request(account, entry, statement)
        elif statement.kind == "receipt":
            self._receipt(account, entry, statement)
        elif statement.kind == "withdrawal":
            self._withdraw(account, entry, statement)
        else:
            stated = account.stated.setdefault((fact.direction, statement.kind), Ranges())
            earlier = stated.overlapping(units)
            if earlier is not None:
                raise broken(entry, f"states something of {units}", expected="units of its own", received=earlier)
            stated.add(units)

    def _receipt(self, account: _Account, entry: Entry, statement: Statement) -> None:
        fact, units = entry.fact, statement.units
        unpaid = f"leaves {units} unpaid"
        request = account.requests.get(units)
        if request is None:
            received = account.ranges.overlapping(units)
            raise broken(entry, unpaid, expected="a request before the receipt", received=received or "a receipt alone")
        if request.entry.fact.direction == fact.direction:
            raise broken(entry, unpaid, expected="a receipt by the other party", received="both by one")
        if request.subject != statement.subject:
            raise broken(entry, unpaid, expected=f"a receipt for {request.subject}", received=statement.subject)
        if request.charge is not None:
            raise broken(entry, f"charges {units} twice")
        if request.is_withdrawn:
            raise broken(entry, f"charges {units}", expected="none of what was withdrawn", received="a receipt")
        del account.unearned[units]
        request.charge = Charge(fact.session, units, fact.peer, statement.subject)
        self.charged.append(request.charge)

    def _withdraw(self, account: _Account, entry: Entry, statement: Statement) -> None:
        """Takes back what is asked for of some units; nothing of them may be asked for afterwards."""
        units = statement.units
        request = account.requests.get(units)
        if request is None:
            overlapping = account.ranges.overlapping(units)
            if overlapping is not None:
                raise broken(entry, f"withdraws {units}", expected=overlapping, received="others")
            account.ranges.add(units)
            request = account.requests[units] = _Request(entry, "")
        elif request.entry.fact.direction != entry.fact.direction:
            raise broken(entry, f"withdraws {units}", expected="the party that asked for them", received="the other")
        elif request.is_withdrawn:
            raise broken(entry, f"withdraws {units} twice")
        request.is_withdrawn = True
        account.unearned.pop(units, None)
        if request.charge is not None:
            self.charged.remove(request.charge)


def _request(account: _Account, entry: Entry, statement: Statement) -> None:
    units = statement.units
    again = account.ranges.overlapping(units)
    if again is not None:
        received = None if again == units else again
        raise broken(entry, f"asks again for {units}", expected=None if again == units else "others", received=received)
    for earlier, request in account.unearned.items():
        if earlier.first < units.first:
            raise broken(
                request.entry,
                f"leaves {earlier} unearned",
                expected=f"a receipt before {units}",
                received="a request alone",
            )
    account.ranges.add(units)
    account.requests[units] = account.unearned[units] = _Request(entry, statement.subject)


def charges_of(entries: Iterable[Entry]) -> list[Charge]:
    """What was bought, in the order of its receipts.

    Raises:
        LedgerBroken: Something is charged without being asked for, or asked for and not delivered when more is asked for.
    """
    charges = Charges()
    for entry in entries:
        if entry.fact.matter == "receipt":
            charges.add(entry, statement_of(entry).statement)
    return charges.charged


def counted(charges: Iterable[Charge]) -> dict[str, int]:
    """How much was charged, by unit."""
    totals = Counter[str]()
    for each in charges:
        totals[each.units.unit] += each.units.count
    return dict(totals)


def in_words(charged: Mapping[str, int]) -> str:
    """What `counted` gave, as people read it: `2 rounds charged`."""
    units = (f"{count:,} {unit if count == 1 else f'{unit}s'} charged" for unit, count in charged.items())
    return ", ".join(units) or "nothing charged"


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


def broken(
    entry: Entry | int,
    what: str,
    *,
    chain: ChainName | None = None,
    expected: object = None,
    received: object = None,
) -> LedgerBroken:
    """The error that names an entry and says of it what is wrong.

    Args:
        entry: The entry, or its index.
        what: What is wrong with it.
        chain: The chain that it stands in; None for the one that it says it belongs to.
        expected: What would have been right.
        received: What stands there.
    """
    # Of an edited ledger an index may be what merely equals a number.
    index = int(entry if isinstance(entry, int) else entry.index)
    if chain is None:
        chain = entry.fact.chain if isinstance(entry, Entry) else ChainName()
    return LedgerBroken(f"ledger entry {index} of {chain} {what}", expected=expected, received=received, action=_ACTION)


def broken_chain(chain: ChainName, what: str, *, expected: object = None, received: object = None) -> LedgerBroken:
    """The error for a chain of which no single entry is to be named."""
    which = f"the ledger's chain of {chain}" if chain.session else str(chain)
    return LedgerBroken(f"{which} {what}", expected=expected, received=received, action=_ACTION)
