"""A store in a database: SQLite in a node's `state_dir`, or PostgreSQL by URL."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from blake3 import blake3
from sqlalchemy import URL, Connection, NestedTransaction, Row, RootTransaction, delete, inspect, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from comity.contract import canonical
from comity.errors import ClockSteppedBack, LedgerBroken, SchemaTooNew, StorageError, StorageFailed
from comity.session import sql_schema as tables
from comity.session.chain import Clock, Tail, utc_now
from comity.session.events import Json
from comity.session.ledger import Entry, Fact, Head
from comity.session.sql_engine import make_engine, parsed, place_of
from comity.session.sql_errors import damaged, explained
from comity.session.store import Record, SessionState, StoredSession

FILE_NAME = "comity.db"
"""The store's name in a node's `state_dir`."""

CLOCK_SLACK = timedelta(minutes=5)
"""How far the clock may be behind the last entry when a store is opened: what a correction of the time takes back."""

_PAGE = 2000
"""Entries that are read at a time."""


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
        self._insert = postgresql.insert if where.get_backend_name() == "postgresql" else sqlite.insert
        self._new_entry = (
            self._insert(tables.ledger)
            .on_conflict_do_nothing(index_elements=["identity"])
            .execution_options(preserve_rowcount=True)
        )
        self._connection: Connection | None = None
        self._tail: Tail | None = None
        """The end of the chain; None while it has to be read."""
        self._grown = False
        """Whether the transaction that is on has added entries."""
        self._failure: StorageError | None = None
        """Why the transaction that is on cannot be committed."""
        self._depth = 0
        self._closed = False
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        with self._translated() as connection:
            if connection.dialect.name == "sqlite":
                problems = [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(1)")]
                connection.rollback()
                if problems != ["ok"]:
                    raise damaged(self._place, problems[0])
        with self.transaction(), self._translated() as connection:
            self._require_schema(connection)
            if not self._read_only:
                self._tail = self._read_tail(connection)
                self._require_clock(self._tail)

    def _require_schema(self, connection: Connection) -> None:
        there = set(inspect(connection).get_table_names())
        if tables.meta.name not in there and not self._read_only and tables.ledger.name not in there:
            tables.metadata.create_all(connection)
            connection.execute(self._insert(tables.meta).values(key="schema", value=str(tables.VERSION)))
            connection.execute(self._insert(tables.head).values(id=0, length=0, hash=Head().hash))
            return
        if not there >= {tables.meta.name, tables.ledger.name}:
            raise damaged(self._place, f"no tables {tables.meta.name} and {tables.ledger.name}")
        value = connection.scalar(select(tables.meta.c.value).where(tables.meta.c.key == "schema"))
        if value is None or not value.isdecimal():
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
            raise LedgerBroken(f"ledger entry {tail.length - 1} has no time", received=tail.time) from error
        if behind > CLOCK_SLACK:
            raise ClockSteppedBack(
                "the clock is behind the ledger's last entry",
                expected=f"{tail.time} or later",
                received=now.isoformat(timespec="seconds"),
                action="set the clock; if the ledger was written with a wrong one, wait, or begin with another state_dir",
            )

    def _read_tail(self, connection: Connection) -> Tail:
        head = self._read_head(connection)
        c = tables.ledger.c
        last = connection.execute(select(c.position, c.hash, c.time).order_by(c.position.desc()).limit(1)).first()
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
        row = connection.execute(select(tables.head.c.length, tables.head.c.hash)).first()
        if row is None:
            raise LedgerBroken(f"the head of the ledger in {self._place} is missing", expected="one row in table head")
        return Head(row.length, row.hash)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside is there as a whole or not at all, and durable at the end. Transactions nest.

        Raises:
            StorageError: It cannot be committed; nothing of it is there.
        """
        with self._lock:
            tail, grown = self._tail, self._grown
            transaction = self._begin()
            self._depth += 1
            try:
                yield
                self._commit(transaction)
            except BaseException:
                self._tail, self._grown = tail, grown
                self._roll_back(transaction)
                raise
            finally:
                self._depth -= 1

    def _begin(self) -> RootTransaction | NestedTransaction:
        with self._translated() as connection:
            if self._depth:
                return connection.begin_nested()
            self._grown = False
            return connection.begin()

    def _commit(self, transaction: RootTransaction | NestedTransaction) -> None:
        with self._translated() as connection:
            if isinstance(transaction, RootTransaction) and self._grown and self._tail is not None:
                connection.execute(update(tables.head).values(length=self._tail.length, hash=self._tail.hash))
            transaction.commit()

    def _roll_back(self, transaction: RootTransaction | NestedTransaction) -> None:
        if self._failure is None:
            try:
                transaction.rollback()
            except DBAPIError as error:
                self._give_up(error)
        if self._failure is not None and isinstance(transaction, RootTransaction):
            # What state the connection is in, nobody knows; what the database has, the next one will see.
            self._disconnect()

    @contextmanager
    def _translated(self) -> Iterator[Connection]:
        """The connection, with the database's errors turned into ours; under the lock."""
        if self._closed:
            raise StorageFailed(f"{self._place} was closed")
        if self._failure is not None:
            raise StorageFailed(f"{self._place} has failed in this transaction", action="nothing of it is kept")
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            yield self._connection
        except (DBAPIError, OSError) as error:
            raise self._give_up(error) from error

    def _give_up(self, error: DBAPIError | OSError) -> Exception: ...

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._lock:
            if self._depth:
                with self._translated() as connection:
                    yield connection
            else:
                with self.transaction(), self._translated() as connection:
                    yield connection
