"""A ledger in a database: each chain's end is read under the database's lock, and written with what follows it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from blake3 import blake3
from sqlalchemy import Connection, func, insert, select

from comity.contract import Json, canonical
from comity.errors import ClockSteppedBack, LedgerBroken
from comity.ledger.chain import Clock, Tail, closed
from comity.ledger.charges import broken, broken_chain
from comity.ledger.ledger import (
    OWN,
    Chain,
    ChainName,
    Crossed,
    Entry,
    Fact,
    Head,
    LedgerSummary,
    Matter,
    Units,
    ending_of,
    opening_of,
)
from comity.store import sql_ledger_statements as sql
from comity.store import sql_schema as tables
from comity.store.sql_connection import SqlConnection
from comity.store.sql_engine import upsert_of

CLOCK_SLACK = timedelta(minutes=5)
"""How far the clock may be behind the last entry when a store is opened: what a correction of the time takes back."""


@dataclass(frozen=True, slots=True)
class _ChainEnd:
    """Where a transaction is in a chain.

    Attributes:
        chain: The chain's number.
        tail: Its end.
        grown: Whether the transaction has added entries.
    """

    chain: int
    tail: Tail
    grown: bool = False


class SqlLedger:
    """The `Ledger` of a store in a database. Several processes may write to one.

    Args:
        database: The connection.
        clock: Says what time it is.
        dialect: Name of the database's kind.
    """

    def __init__(self, database: SqlConnection, clock: Clock, dialect: str) -> None:
        self._database = database
        self._clock = clock
        upsert = upsert_of(dialect)
        kind: Any = type(database.engine.dialect)
        self._add_entry, self._read_tail, self._move = sql.prepared(kind)
        self._add_chain = upsert(sql.CHAINS).on_conflict_do_nothing(index_elements=["session", "peer"])
        # Of the active transaction alone: what is read under its lock holds until its end.
        self._places: dict[ChainName, _ChainEnd] = {}

    def mark(self) -> object:
        """See `Pending.mark`."""
        return dict(self._places)

    def reset(self, mark: Any) -> None:
        """See `Pending.reset`."""
        self._places = {} if mark is None else mark

    def flush(self, connection: Connection) -> None:
        """See `Pending.flush`."""
        for place in self._places.values():
            if place.grown:
                tail = place.tail
                values = {"length": tail.length, "hash": tail.hash, "time": tail.time, "ended": int(tail.ended)}
                self._move.execute(connection, values | {"moved": place.chain})

    def record(self, fact: Fact) -> bool:
        """See `Ledger.record`.

        Raises:
            UnknownSession: The session has ended with this peer.
            StorageError: It cannot be written.
            LedgerBroken: The chain does not end where it should.
        """
        with self._database.working() as connection:
            return self._record(connection, fact)

    def _record(self, connection: Connection, fact: Fact) -> bool:
        name = fact.chain
        place = self._places.get(name) or self._enter(connection, name)
        identity = blake3(fact.identity.encode()).digest()
        if place.tail.ended:
            if connection.execute(sql.STANDS, {"identity": identity}).first() is None:
                raise closed(fact)
            return False
        entry = place.tail.next(fact, self._clock())
        row = _row(place.chain, entry) | {"identity": identity}
        if self._add_entry.execute(connection, row).rowcount == 0:
            return False
        if (fact.matter, fact.direction) != ("delivered", "sent"):
            # That what was sent arrived, the peer says again when it is asked; what it was told to be here must be here.
            self._database.note_change()
        tail = Tail.after(entry)
        self._places[name] = replace(place, tail=tail, grown=True)
        if name != OWN:
            if tail.length == 1 and not self._record(connection, opening_of(fact)):
                raise broken_chain(name, "is missing", expected="what the node's own chain opened", received="none")
            if tail.ended:
                self._record(connection, ending_of(fact, tail.head))
        return True

    def _enter(self, connection: Connection, name: ChainName) -> _ChainEnd:
        """Where a chain ends; from here to the end of the transaction nobody else appends to it."""
        key = name._asdict()
        row = self._read_tail.execute(connection, key).fetchone()
        if row is None and name != OWN:
            connection.execute(self._add_chain, key | {"length": 0, "hash": Head().hash, "time": "", "ended": 0})
            row = self._read_tail.execute(connection, key).fetchone()
        if row is None:
            raise _no_head(self._database.place)
        chain, length, hash, time, ended, last = row
        if length and last != hash:
            raise self._torn(name, length)
        place = self._places[name] = _ChainEnd(chain, Tail(length, hash, time, bool(ended)))
        return place

    def _torn(self, name: ChainName, length: int) -> LedgerBroken:
        return LedgerBroken(
            f"the ledger in {self._database.place} does not end where it should",
            expected=f"{length} entries of {name}, the last as its head says",
            received="others",
            action="comity ledger verify tells more",
        )

    def chains(self, session: str | None = None, peer: str | None = None) -> Sequence[Chain]:
        """See `Ledger.chains`; entries are read, page by page, when iterated.

        Raises:
            StorageError: They cannot be read.
            LedgerBroken: The node's own chain is missing; or, raised when iteration comes to it, what stands there is no
                entry.
        """
        query = sql.HEADS
        for column, wanted in ((sql.CHAINS.c.session, session), (sql.CHAINS.c.peer, peer)):
            query = query if wanted is None else query.where(column == wanted)
        with self._database.working() as connection:
            rows = connection.execute(query).all()
            found = [self._chain(*row) for row in rows]
        if session is None and peer is None and (not found or found[0].name != OWN):
            raise _no_head(self._database.place)
        return found

    def _chain(self, chain: int, session: str, peer: str, length: int, hash: str) -> Chain:
        name = ChainName(session, peer)
        place = self._places.get(name)
        head = Head(length, hash) if place is None else place.tail.head
        return Chain(name, head, _Entries(self, chain, name))

    def entries(self, session: str | None = None, peer: str | None = None) -> Iterable[Entry]:
        """See `Ledger.entries`; they are read, page by page, when iterated.

        Raises:
            StorageError: They cannot be read.
            LedgerBroken: What stands there is no entry; raised when iteration comes to it.
        """
        return _Joined(self, session, peer)

    def facts(self, matter: Matter) -> Sequence[Fact]:
        """See `Ledger.facts`.

        Raises:
            StorageError: They cannot be read.
            LedgerBroken: What stands there is no entry.
        """
        with self._database.working() as connection:
            rows = connection.execute(sql.OF_MATTER, {"matter": matter}).all()
        return [_entry_of(row).fact for row in rows]

    def summary(self, tail: int) -> LedgerSummary:
        """See `Ledger.summary`.

        Raises:
            StorageError: It cannot be read.
            LedgerBroken: What stands there is no entry.
        """
        with self._database.working() as connection:
            entries = connection.scalar(sql.COUNTED)
            crossed = connection.execute(sql.CROSSED).all()
            rows = connection.execute(sql.LATEST, {"tail": tail}).all()
        sent, received = (
            {str(row[1]): int(row[2]) for row in crossed if row[0] == wanted} for wanted in ("sent", "received")
        )
        return LedgerSummary(int(entries or 0), sent, received, [_entry_of(row) for row in reversed(rows)])

    def crossed(self, since: str) -> Sequence[Crossed]:
        """See `Ledger.crossed`.

        Raises:
            StorageError: It cannot be read.
        """
        with self._database.working() as connection:
            rows = connection.execute(sql.CROSSED_SINCE, {"since": since}).all()
        return [Crossed(str(row[0]), str(row[1]), str(row[2]), int(row[3])) for row in rows]

    def page(self, chain: int, after: int) -> Sequence[Sequence[Any]]:
        """Some rows of a chain: those that follow a position."""
        with self._database.working() as connection:
            return connection.execute(sql.ENTRIES, {"chain": chain, "after": after}).all()

    def head(self, session: str = "", peer: str = "") -> Head:
        """See `Ledger.head`.

        Raises:
            StorageError: It cannot be read.
            LedgerBroken: The node's own is not there.
        """
        name = ChainName(session, peer)
        with self._database.working() as connection:
            place = self._places.get(name)
            if place is not None:
                return place.tail.head
            row = connection.execute(
                sql.HEADS.where(sql.CHAINS.c.session == session, sql.CHAINS.c.peer == peer)
            ).first()
        if row is None and name == OWN:
            raise _no_head(self._database.place)
        return Head() if row is None else Head(row.length, row.hash)

    def require_sound(self, connection: Connection) -> None:
        """Checks that every chain ends where it should, and not after now.

        Raises:
            LedgerBroken: One does not, or is missing.
            ClockSteppedBack: The clock is behind an entry.
        """
        torn = connection.execute(sql.TORN).first()
        if torn is not None:
            raise self._torn(ChainName(torn.session, torn.peer), torn.length)
        if connection.execute(sql.HEADS.where(sql.CHAINS.c.chain == tables.OWN_CHAIN)).first() is None:
            raise _no_head(self._database.place)
        removed = connection.execute(sql.REMOVED).first()
        if removed is not None:
            expected = f"what entry {removed.position} of {OWN} opened"
            raise broken_chain(
                ChainName(removed.session, removed.peer), "is missing", expected=expected, received="none"
            )
        self._require_clock(connection)

    def _require_clock(self, connection: Connection) -> None:
        now, last = self._clock(), connection.scalar(select(func.max(sql.CHAINS.c.time)))
        try:
            behind = datetime.fromisoformat(last) - now if last else timedelta()
        except (TypeError, ValueError) as error:
            raise LedgerBroken("the ledger's last entry has no time", expected="ISO 8601", received=last) from error
        if behind > CLOCK_SLACK:
            raise ClockSteppedBack(
                "the clock is behind the ledger's last entry",
                expected=f"{last} or later",
                received=now.isoformat(timespec="seconds"),
                action="set the clock; if the ledger was written with a wrong one, wait, or begin with another state_dir",
            )

    def begin(self, connection: Connection) -> None:
        """Makes the node's own chain, in tables that are new."""
        own = {"chain": tables.OWN_CHAIN, "session": OWN.session, "peer": OWN.peer}
        connection.execute(insert(sql.CHAINS).values(own | {"length": 0, "hash": Head().hash, "time": "", "ended": 0}))


class _Entries:
    """Entries of a chain that are read when iterated, as often as that is."""

    def __init__(self, ledger: SqlLedger, chain: int, name: ChainName) -> None:
        self._ledger = ledger
        self._chain = chain
        self._name = name

    def __iter__(self) -> Iterator[Entry]:
        after = -1
        while rows := self._ledger.page(self._chain, after):
            for row in rows:
                yield _entry(self._name, row)
            after = rows[-1][0]


class _Joined:
    """The entries of several chains, likewise."""

    def __init__(self, ledger: SqlLedger, session: str | None, peer: str | None) -> None:
        self._ledger = ledger
        self._which = session, peer

    def __iter__(self) -> Iterator[Entry]:
        for chain in self._ledger.chains(*self._which):
            if chain.name != OWN:
                yield from chain.entries


def _no_head(place: str) -> LedgerBroken:
    return LedgerBroken(
        f"the head of the ledger in {place} is missing",
        expected="the node's own chain in table chains",
        received="none",
        action="keep the file as it is, and compare with the other party's: comity ledger compare",
    )


def _row(chain: int, entry: Entry) -> dict[str, object]:
    fact, units = entry.fact, entry.fact.units
    return {
        "chain": chain,
        "position": entry.index,
        "matter": fact.matter,
        "session": fact.session,
        "unit": units.unit,
        "first": units.first,
        "count": units.count,
        "peer": fact.peer,
        "direction": fact.direction,
        "kind": fact.kind,
        "subject": fact.subject,
        "size": fact.size,
        "body": canonical(fact.body).decode() if fact.body else "{}",
        "time": entry.time,
        "previous": entry.previous,
        "hash": entry.hash,
    }


def _entry_of(row: Sequence[Any]) -> Entry:
    """The entry of a row, of whatever session's chain."""
    return _entry(ChainName(session=row[2], peer=row[6]), row)


def _entry(chain: ChainName, row: Sequence[Any]) -> Entry:
    index, matter, session, unit, first, count, peer, direction, kind, subject, size, body, time, previous, hash = row
    if body == "{}":
        said: Mapping[str, Json] = {}
    else:
        try:
            said = json.loads(body)
        except (TypeError, ValueError, RecursionError) as error:
            raise broken(
                index, "has a body that cannot be read", chain=chain, expected="a JSON object", received=body
            ) from error
    fact = Fact(matter, session, Units(unit, first, count), peer, direction, kind, subject, size, said)
    return Entry(index, fact, time, previous, hash)
