"""A store in a database: SQLite in a node's `state_dir`, or PostgreSQL by URL."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from blake3 import blake3
from sqlalchemy import (
    URL,
    Connection,
    Transaction,
    bindparam,
    delete,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from comity.contract import Json, canonical
from comity.errors import ClockSteppedBack, LedgerBroken, SchemaTooNew, StorageFailed
from comity.ledger.chain import Clock, Tail, utc_now
from comity.ledger.charges import broken
from comity.ledger.ledger import Entry, Fact, Head
from comity.store import sql_schema as tables
from comity.store.sql_engine import make_engine, parsed, place_of
from comity.store.sql_errors import damaged, explained
from comity.store.store import FINISHED, Record, StoredSession, Waiting

FILE_NAME = "comity.db"
"""The store's name in a node's `state_dir`."""

CLOCK_SLACK = timedelta(minutes=5)
"""How far the clock may be behind the last entry when a store is opened: what a correction of the time takes back."""

_PAGE = 2000
"""Entries that are read at a time."""

# Statements are built once: what they cost then is the database's, not ours.
_MOVE_HEAD = update(tables.head)
_READ_HEAD = select(tables.head.c.length, tables.head.c.hash)
_READ_TAIL = (
    select(*tables.ledger.c["position", "hash", "time"].values()).order_by(tables.ledger.c.position.desc()).limit(1)
)
_ENTRIES = (
    select(*(column for column in tables.ledger.c if column.name != "identity"))
    .where(tables.ledger.c.position > bindparam("after"))
    .order_by(tables.ledger.c.position)
    .limit(_PAGE)
)
_ENTRIES_OF_SESSION = _ENTRIES.where(tables.ledger.c.session == bindparam("name"))
_SESSIONS = select(*(column for column in tables.sessions.c if column.name != "position")).order_by(
    tables.sessions.c.position
)
_SESSION = _SESSIONS.where(tables.sessions.c.session == bindparam("name"))
_ADD_RECORD = insert(tables.journal)
_RECORDS = (
    select(*tables.journal.c["kind", "round", "fields", "digest"].values())
    .where(tables.journal.c.session == bindparam("name"))
    .order_by(tables.journal.c.position)
)
_FORGET = delete(tables.journal).where(tables.journal.c.session == bindparam("name"), tables.journal.c.kind != FINISHED)


def store_url(state_dir: Path) -> URL:
    """Where a node's store is when its configuration names no other place."""
    return URL.create("sqlite", database=str(state_dir / FILE_NAME))


class SqlStore:
    """A `Store` in a database, for one node process at a time and any number of its threads.

    Args:
        url: `sqlite:///PATH` or `postgresql://…`; the tables are made where there are none.
        read_only: Change nothing and make nothing: for looking at the store of a node, which may be running.
        durable: Have a commit wait for the disk.
        clock: Says what time it is.

    Raises:
        InvalidValue: The URL cannot be used.
        MissingFile: There is no store to read.
        StorageError: The store cannot be used: it is damaged, of a later version, or later than the clock.
        StateInUse: Another process works in the same PostgreSQL schema.
        LedgerBroken: The ledger does not end where it should.
    """

    def __init__(
        self, url: str | URL, *, read_only: bool = False, durable: bool = True, clock: Clock = utc_now
    ) -> None:
        where = parsed(url)
        self._place = place_of(where)
        self._read_only = read_only
        self._clock = clock
        self._lock = threading.RLock()
        self._engine = make_engine(where, read_only=read_only, durable=durable)
        upsert = postgresql.insert if where.get_backend_name() == "postgresql" else sqlite.insert
        self._add_entry = (
            upsert(tables.ledger)
            .on_conflict_do_nothing(index_elements=["identity"])
            .execution_options(preserve_rowcount=True)
        )
        added = upsert(tables.sessions)
        new = {
            name: added.excluded[name]
            for name in ("contract", "own", "peers", "state", "result", "begun", "waits", "promised", "digest")
        }
        self._save_session = added.on_conflict_do_update(index_elements=["session"], set_=new)
        self._connection: Connection | None = None
        # The end of the chain; None while it has to be read.
        self._tail: Tail | None = None
        # Whether the transaction that is on has added entries, and whether the database failed in it.
        self._grown = False
        self._broken = False
        self._depth = 0
        self._closed = False
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        with self._working() as connection:
            if connection.dialect.name == "sqlite":
                # A node finds its records by the indexes, which the quick check leaves out.
                check = "quick_check" if self._read_only else "integrity_check"
                found = connection.exec_driver_sql(f"PRAGMA {check}(1)").scalar()
                if found != "ok":
                    raise damaged(self._place, found)
            self._require_schema(connection)
            if not self._read_only:
                self._tail = self._read_tail(connection)
                self._require_clock(self._tail)

    def _require_schema(self, connection: Connection) -> None:
        there = set(inspect(connection).get_table_names())
        if tables.meta.name not in there and not self._read_only and tables.ledger.name not in there:
            tables.metadata.create_all(connection)
            connection.execute(insert(tables.meta).values(key="schema", value=str(tables.VERSION)))
            connection.execute(insert(tables.head).values(id=0, length=0, hash=Head().hash))
            return
        if not there >= {tables.meta.name, tables.ledger.name}:
            raise damaged(self._place, f"no tables {tables.meta.name} and {tables.ledger.name}")
        value = str(connection.scalar(select(tables.meta.c.value).where(tables.meta.c.key == "schema")))
        if not value.isdecimal():
            raise damaged(self._place, f"a schema of version {value}")
        if int(value) > tables.VERSION:
            raise SchemaTooNew(
                f"{self._place} was written by a later version",
                expected=f"schema {tables.VERSION}",
                received=f"schema {value}",
                action="upgrade comity, or begin with another state_dir",
            )

    def _require_clock(self, tail: Tail) -> None:
        now = self._clock()
        try:
            last = datetime.fromisoformat(tail.time) if tail.time else now
            behind = last - now
        except (TypeError, ValueError) as error:
            raise broken(tail.length - 1, "has no time", received=tail.time) from error
        if behind > CLOCK_SLACK:
            raise ClockSteppedBack(
                "the clock is behind the ledger's last entry",
                expected=f"{tail.time} or later",
                received=now.isoformat(timespec="seconds"),
                action="set the clock; if the ledger was written with a wrong one, wait, or begin with another state_dir",
            )

    def _read_tail(self, connection: Connection) -> Tail:
        head = self._read_head(connection)
        last = connection.execute(_READ_TAIL).first()
        tail = Tail() if last is None else Tail(last.position + 1, last.hash, last.time)
        if tail.head != head:
            raise LedgerBroken(
                f"the ledger in {self._place} does not end where it should",
                expected=f"{head.length} entries that end in {head.hash[:16]}…",
                received=f"{tail.length} that end in {tail.hash[:16]}…",
                action="comity ledger verify tells more",
            )
        return tail

    def _read_head(self, connection: Connection) -> Head:
        row = connection.execute(_READ_HEAD).first()
        if row is None:
            raise LedgerBroken(
                f"the head of the ledger in {self._place} is missing",
                expected="one row in table head",
                received="none",
                action="keep the file as it is, and compare with the other party's: comity ledger compare",
            )
        return Head(row.length, row.hash)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside is there as a whole or not at all, and durable at the end. Transactions nest.

        Other threads wait until it is over.

        Raises:
            StorageError: It cannot be begun or committed; nothing of it is there.
        """
        with self._lock:
            before = (self._tail, self._grown) if self._depth else (None, False)
            transaction: Transaction | None = None
            self._depth += 1
            try:
                transaction = self._begin()
                yield
                self._commit(transaction)
            except BaseException:
                self._tail, self._grown = before
                self._roll_back(transaction)
                raise
            finally:
                self._depth -= 1
                if self._broken and not self._depth:
                    # What state the connection is in, nobody knows; what the database has, the next one will see.
                    self._disconnect()

    def _begin(self) -> Transaction:
        with self._connected() as connection:
            if self._depth > 1:
                return connection.begin_nested()
            self._grown = False
            return connection.begin()

    def _commit(self, transaction: Transaction) -> None:
        with self._connected() as connection:
            if self._depth == 1 and self._grown and self._tail is not None:
                end = {"length": self._tail.length, "hash": self._tail.hash}
                connection.execute(_MOVE_HEAD, end)
            transaction.commit()

    def _roll_back(self, transaction: Transaction | None) -> None:
        if transaction is None or self._broken:
            return
        try:
            transaction.rollback()
        except DBAPIError:
            self._broken = True

    def _disconnect(self) -> None:
        connection, self._connection, self._tail, self._broken = self._connection, None, None, False
        if connection is not None:
            with contextlib.suppress(DBAPIError):
                connection.invalidate()
            connection.close()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """The connection; what the database raises is raised as an error of ours."""
        if self._closed:
            raise StorageFailed(f"{self._place} was closed")
        if self._broken:
            raise StorageFailed(f"{self._place} has failed in this transaction", action="nothing of it is kept")
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            yield self._connection
        except (DBAPIError, OSError, UnicodeDecodeError) as error:
            self._broken = True
            raise explained(error, self._place) from error

    @contextmanager
    def _working(self) -> Iterator[Connection]:
        """The connection in a transaction: the one that is on, or one of its own."""
        with self._lock:
            if self._depth:
                with self._connected() as connection:
                    yield connection
            else:
                with self.transaction(), self._connected() as connection:
                    yield connection

    def record(self, fact: Fact) -> bool:
        """Appends an entry, durably, unless the same fact stands there already; returns whether it was new.

        Raises:
            StorageError: It cannot be written.
        """
        with self._working() as connection:
            tail = self._read_tail(connection) if self._tail is None else self._tail
            entry = tail.next(fact, self._clock())
            new = connection.execute(self._add_entry, _entry_row(entry)).rowcount > 0
            if new:
                tail = Tail.after(entry)
                self._grown = True
            self._tail = tail
        return new

    def entries(self, session: str | None = None) -> Iterable[Entry]:
        """The entries in order: all of them, or those of one session. They are read, page by page, when iterated.

        Raises:
            StorageError: They cannot be read.
            LedgerBroken: What stands there is no entry; raised when iteration comes to it.
        """
        return _Entries(self, session)

    def page(self, session: str | None, after: int) -> Sequence[Sequence[Any]]:
        """Some rows of the ledger: those that follow a position."""
        query = _ENTRIES if session is None else _ENTRIES_OF_SESSION
        with self._working() as connection:
            return connection.execute(query, {"after": after, "name": session}).all()

    def head(self) -> Head:
        """The end of the chain.

        Raises:
            StorageError: It cannot be read.
            LedgerBroken: It is not there, or the ledger does not end there.
        """
        with self._working() as connection:
            if self._read_only:
                return self._read_head(connection)
            if self._tail is None:
                self._tail = self._read_tail(connection)
            return self._tail.head

    def save(self, session: StoredSession) -> None:
        """Adds a session, or replaces what is kept of it.

        Raises:
            StorageError: It cannot be written.
        """
        row: dict[str, str | int] = {
            "session": session.session,
            "contract": _text(session.contract),
            "own": _text(session.own),
            "peers": canonical(list(session.peers)).decode(),
            "state": session.state,
            "result": _text(session.result),
            "begun": session.begun,
            "waits": canonical([asdict(each) for each in session.waits]).decode(),
            "promised": session.promised,
        }
        with self._working() as connection:
            connection.execute(self._save_session, row | {"digest": _digest(row.values())})

    def sessions(self) -> Sequence[StoredSession]:
        """All sessions, in the order in which they were added.

        Raises:
            StorageError: They cannot be read, or are not what was written.
        """
        with self._working() as connection:
            rows = connection.execute(_SESSIONS).all()
        return [self._session(row) for row in rows]

    def find(self, session: str) -> StoredSession | None:
        """The session of an identifier, None where there is none.

        Raises:
            StorageError: It cannot be read, or is not what was written.
        """
        with self._working() as connection:
            row = connection.execute(_SESSION, {"name": session}).first()
        return None if row is None else self._session(row)

    def _session(self, row: Sequence[Any]) -> StoredSession:
        *values, digest = row
        name, contract, own, peers, state, result, begun, waits, promised = values
        self._require_digest(values, digest, f"session {name}")
        return StoredSession(
            name,
            json.loads(contract),
            json.loads(own),
            tuple(json.loads(peers)),
            state,
            json.loads(result),
            begun,
            tuple(Waiting(**each) for each in json.loads(waits)),
            promised,
        )

    def append(self, session: str, record: Record) -> None:
        """Adds a record to a session's journal.

        Raises:
            StorageError: It cannot be written.
        """
        row = {"session": session, "kind": record.kind, "round": record.round, "fields": _text(record.fields)}
        with self._working() as connection:
            connection.execute(_ADD_RECORD, row | {"digest": _digest(row.values())})

    def records(self, session: str) -> Sequence[Record]:
        """A session's journal, in order.

        Raises:
            StorageError: It cannot be read, or is not what was written.
        """
        with self._working() as connection:
            rows = connection.execute(_RECORDS, {"name": session}).all()
        found = []
        for kind, round, fields, digest in rows:
            self._require_digest([session, kind, round, fields], digest, f"the journal of session {session}")
            found.append(Record(kind, round, json.loads(fields)))
        return found

    def _require_digest(self, values: Iterable[object], digest: object, what: str) -> None:
        if _digest(values) != digest:
            raise damaged(self._place, f"{what} with another content than was written")

    def forget(self, session: str) -> None:
        """See `Store.forget`.

        Raises:
            StorageError: It cannot be written.
        """
        with self._working() as connection:
            connection.execute(_FORGET, {"name": session})

    def close(self) -> None:
        """Lets go of files and connections. Closing twice is fine."""
        with self._lock:
            self._closed = True
            self._disconnect()
            self._engine.dispose()


class _Entries:
    """Entries that are read when iterated, as often as that is."""

    def __init__(self, store: SqlStore, session: str | None) -> None:
        self._store = store
        self._session = session

    def __iter__(self) -> Iterator[Entry]:
        after = -1
        while rows := self._store.page(self._session, after):
            yield from map(_entry, rows)
            after = rows[-1][0]


def _entry_row(entry: Entry) -> dict[str, object]:
    fact = entry.fact
    return {
        "position": entry.index,
        "matter": fact.matter,
        "session": fact.session,
        "round": fact.round,
        "peer": fact.peer,
        "direction": fact.direction,
        "kind": fact.kind,
        "subject": fact.subject,
        "size": fact.size,
        "body": _text(fact.body),
        "time": entry.time,
        "previous": entry.previous,
        "hash": entry.hash,
        "identity": blake3(fact.identity.encode()).digest(),
    }


def _entry(row: Sequence[Any]) -> Entry:
    index, matter, session, round, peer, direction, kind, subject, size, body, time, previous, hash = row
    if body == "{}":
        said: Mapping[str, Json] = {}
    else:
        try:
            said = json.loads(body)
        except (TypeError, ValueError, RecursionError) as error:
            raise broken(index, "has a body that cannot be read", expected="a JSON object", received=body) from error
    return Entry(index, Fact(matter, session, round, peer, direction, kind, subject, size, said), time, previous, hash)


def _text(value: Mapping[str, Json]) -> str:
    return canonical(value).decode() if value else "{}"


def _digest(values: Iterable[object]) -> str:
    return blake3(canonical(list(values))).hexdigest()
