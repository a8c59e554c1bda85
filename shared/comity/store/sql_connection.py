"""A store's connection to its database, with transactions that nest."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import ClauseElement, Connection, Dialect, Engine, Transaction
from sqlalchemy.exc import DBAPIError

from comity.errors import StorageFailed
from comity.store.sql_errors import explained


class Pending(Protocol):
    """What a transaction has read and will write at its end."""

    def mark(self) -> object:
        """What there is now, to come back to."""

    def reset(self, mark: object | None) -> None:
        """Goes back to a mark; without one, to nothing."""

    def flush(self, connection: Connection) -> None:
        """Writes what is to be written."""


class Prepared:
    """A statement that is turned into text once: what it costs then is the database's, not ours.

    Args:
        statement: The statement.
        dialect: Of the database that it is for.
        columns: Of an insertion, the columns that it fills.
    """

    def __init__(self, statement: ClauseElement, dialect: Dialect, columns: Sequence[str] | None = None) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=columns)
        self._text = str(compiled)
        self._names: Sequence[str] | None = compiled.positiontup
        self._given: Mapping[str, object] = compiled.params

    def execute(self, connection: Connection, values: Mapping[str, object]) -> Any:
        """Executes it; returns the driver's cursor."""
        values = {**self._given, **values}
        cursor = connection.connection.cursor()
        cursor.execute(self._text, values if self._names is None else tuple(values[name] for name in self._names))
        return cursor


class SqlConnection:
    """One connection, for any number of threads, of which one at a time has it.

    Args:
        engine: Makes it, as often as that is needed.
        place: The file or server, as it may be shown.
        log: The database's log, where a commit does not wait for the disk, and `sync` does; None where nothing waits, or
            each commit does.

    Attributes:
        place: See above.
        engine: See above.
        rolled_back: How many transactions, or parts of one, came to nothing.
    """

    def __init__(self, engine: Engine, place: str, log: Path | None = None) -> None:
        self._log = log
        self._syncing = threading.Lock()
        # Transactions with changes that have to be durable before anybody is told: committed, and on the disk.
        self._committed = self._synced = 0
        # Why the disk failed, once it has.
        self._failed = ""
        self._is_changed = self._is_urgent = False
        self.place = place
        self.engine = engine
        self._driver_error: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._lock = threading.RLock()
        self._connection: Connection | None = None
        self._pending: Pending | None = None
        self.rolled_back = 0
        self._broken = False
        self._depth = 0
        self._closed = False

    def attach(self, pending: Pending) -> None:
        """Names what is to be written at the end of each transaction, and dropped where one fails."""
        self._pending = pending

    def note_change(self, *, urgent: bool = False) -> None:
        """Says that the active transaction changes what has to be durable before anybody is told of it.

        Args:
            urgent: Whether the transaction's end waits for that.
        """
        self._is_changed = True
        self._is_urgent |= urgent

    def sync(self) -> None:
        """See `Store.sync`. Those who wait at a time have one sync in common.

        After one that failed none is tried again: the system may have dropped what it could not write, and would say that
        all is well.

        Raises:
            StorageError: The disk fails, or failed before.
        """
        log, wanted = self._log, self._committed
        if log is None or self._synced >= wanted:
            return
        with self._syncing:
            if self._synced >= wanted:
                return
            if self._failed:
                raise self._unkept(self._failed)
            committed = self._committed
            try:
                # SQLite's own commit waits in the same way. It holds no locks on this file that closing it would lose.
                descriptor = os.open(log, os.O_RDONLY)
                try:
                    getattr(os, "fdatasync", os.fsync)(descriptor)
                finally:
                    os.close(descriptor)
            except FileNotFoundError:
                # Whoever closes the database last moves what is in its log, synced, and takes the log away.
                pass
            except OSError as error:
                self._failed = error.strerror or str(error)
                raise self._unkept(self._failed) from error
            self._synced = committed

    def _unkept(self, why: str) -> StorageFailed:
        action = "see to the disk, and start the node again"
        return StorageFailed(f"{self.place} cannot be kept", received=why, action=action)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See `Store.transaction`.

        Raises:
            StorageError: It cannot be begun or committed; nothing of it is there.
        """
        is_urgent = False
        with self._lock:
            pending = self._pending
            mark = pending.mark() if pending is not None and self._depth else None
            transaction: Transaction | None = None
            self._depth += 1
            try:
                transaction = self._begin()
                yield
                self._commit(transaction)
                if self._depth == 1:
                    is_urgent = self._is_urgent
                    self._committed += self._is_changed
            except BaseException:
                if pending is not None:
                    pending.reset(mark)
                self._roll_back(transaction)
                raise
            finally:
                self._depth -= 1
                if not self._depth:
                    self._is_changed = self._is_urgent = False
                    if pending is not None:
                        # What stands there next time, another process may have written.
                        pending.reset(None)
                if self._broken and not self._depth:
                    # What state the connection is in, nobody knows; what the database has, the next one will see.
                    self._disconnect()
        if is_urgent:
            self.sync()

    def _begin(self) -> Transaction:
        with self._connected() as connection:
            return connection.begin_nested() if self._depth > 1 else connection.begin()

    def _commit(self, transaction: Transaction) -> None:
        with self._connected() as connection:
            if self._depth == 1 and self._pending is not None:
                self._pending.flush(connection)
            transaction.commit()

    def _roll_back(self, transaction: Transaction | None) -> None:
        self.rolled_back += 1
        if transaction is None or self._broken:
            return
        try:
            transaction.rollback()
        except DBAPIError:
            self._broken = True

    def _disconnect(self) -> None:
        connection, self._connection, self._broken = self._connection, None, False
        if connection is not None:
            with contextlib.suppress(DBAPIError):
                connection.invalidate()
            connection.close()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """The connection; what the database raises is raised as an error of ours."""
        if self._closed:
            raise StorageFailed(f"{self.place} was closed")
        if self._broken:
            raise StorageFailed(f"{self.place} has failed in this transaction", action="nothing of it is kept")
        try:
            if self._connection is None:
                self._connection = self.engine.connect()
            yield self._connection
        except (DBAPIError, self._driver_error, OSError, UnicodeDecodeError) as error:
            self._broken = True
            raise explained(error, self.place) from error

    @contextmanager
    def working(self) -> Iterator[Connection]:
        """The connection in a transaction: the active one, or one of its own.

        Raises:
            StorageError: The database fails.
        """
        with self._lock:
            if self._depth:
                with self._connected() as connection:
                    yield connection
            else:
                with self.transaction(), self._connected() as connection:
                    yield connection

    def close(self) -> None:
        """Lets go of files and connections. Closing twice is fine."""
        with self._lock:
            self._closed = True
            self._disconnect()
            self.engine.dispose()
