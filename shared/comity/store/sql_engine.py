"""Connections to the databases that a store can be in."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from comity.errors import InvalidValue, MissingFile

BUSY_S = 10.0
"""How long to wait for another process that holds the database, in seconds."""

_FORMS = "sqlite:///PATH or postgresql://USER@HOST/DATABASE"


_LOCK = 0x434F4D49
"""The family of PostgreSQL's advisory locks that are ours."""


def be_alone(connection: Connection) -> None:
    """Keeps others that would write out until the end of the transaction: tables are made once.

    A writer on SQLite is alone from the beginning of its transaction.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK}, hashtext(current_schema()))")


def parsed(url: str | URL) -> URL:
    """The URL of a database that a store can be in.

    Raises:
        InvalidValue: It is of another kind, or its driver is not installed.
    """
    try:
        read = make_url(url)
    except ArgumentError as error:
        raise InvalidValue(
            "a store's URL cannot be read",
            expected=_FORMS,
            received=re.sub(r"//.*@|[?].*", "//…@", str(url)),
            action="correct `store`",
        ) from error
    kind = read.get_backend_name()
    if kind == "sqlite" and read.database not in {None, "", ":memory:"}:
        return read.set(drivername="sqlite")
    if kind == "postgresql":
        if find_spec("psycopg") is None:
            raise InvalidValue(
                "PostgreSQL needs a driver",
                expected="psycopg",
                received="nothing",
                action="pip install 'comity[postgres]'",
            )
        return read.set(drivername="postgresql+psycopg")
    raise InvalidValue(
        "a store cannot be there",
        expected=_FORMS,
        received=_shown(read),
        action="correct `store`, or leave it out for SQLite in state_dir",
    )


def _shown(url: URL) -> str:
    """A URL without what may be secret: a password also stands behind a question mark."""
    return url.set(query={}).render_as_string(hide_password=True)


def upsert_of(dialect: str) -> Callable[..., Any]:
    """The `insert` of a dialect, which says what becomes of a row that is there. Each takes its time to import."""
    insert: Callable[..., Any] = resolve_name(f"sqlalchemy.dialects.{dialect}:insert")
    return insert


def place_of(url: URL) -> str:
    """Where a store is, as it may be shown: a path, or a URL without its password."""
    return str(url.database) if url.get_backend_name() == "sqlite" else _shown(url)


def log_of(url: URL) -> Path | None:
    """The file that is to be synced for what was committed to be durable; None where the database sees to that itself."""
    return Path(f"{url.database}-wal") if url.get_backend_name() == "sqlite" else None


def make_engine(url: URL, *, read_only: bool, durable: bool) -> Engine:
    """The engine for a store: one connection at a time, made as the store needs it.

    Args:
        url: What `parsed` gave.
        read_only: Change nothing.
        durable: Have a commit wait for the disk.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(Path(str(url.database)), read_only=read_only, durable=durable)
    return _postgresql(url, read_only=read_only, durable=durable)


def _sqlite(path: Path, *, read_only: bool, durable: bool) -> Engine:
    def connect() -> sqlite3.Connection:
        if not read_only:
            return _open_sqlite(path, "mode=rwc", durable=durable)
        if not path.is_file():
            raise MissingFile(
                f"there is no store at {path}",
                expected="a node's state_dir",
                received="nothing",
                action="name the node's state_dir with --state",
            )
        try:
            return _open_sqlite(path, "mode=ro")
        except sqlite3.OperationalError:
            # In a folder that cannot be written SQLite reads only a file of which nobody else can be writing.
            if path.with_name(f"{path.name}-wal").exists():
                raise
            return _open_sqlite(path, "mode=ro&immutable=1")

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    # The driver is in autocommit, so that transactions begin where the store begins them. A writer begins as one: were
    # it to begin as a reader, another could come between.
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"

    def on_begin(connection: Connection) -> None:
        # Each transaction begins here: SQLAlchemy's own way takes several times as long.
        connection.connection.cursor().execute(begin)

    event.listen(engine, "begin", on_begin)
    return engine


def _open_sqlite(path: Path, how: str, *, durable: bool = True) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?{how}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    try:
        if how == "mode=rwc":
            # A write-ahead log, and whoever reads keeps nobody from writing. With NORMAL the log is synced before what
            # is in it is moved elsewhere, and otherwise when the store says so: a kill, or a loss of power, at any moment
            # leaves whole transactions, and of these none without those before it.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if durable else 'OFF'}")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("SELECT count(*) FROM sqlite_master")
    except BaseException:
        connection.close()
        raise
    return connection


def _postgresql(url: URL, *, read_only: bool, durable: bool) -> Engine:
    if read_only:
        settings = ["SET default_transaction_read_only = on"]
    else:
        settings = [
            f"SET synchronous_commit = {'on' if durable else 'off'}",
            f"SET lock_timeout = '{1000 * BUSY_S:.0f}ms'",
        ]
    # A reader sees ledger and head as of one moment.
    engine = create_engine(
        url,
        poolclass=NullPool,
        isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        connect_args={"connect_timeout": 10},
    )

    def on_connect(connection: Any, _record: object) -> None:
        try:
            with connection.cursor() as cursor:
                for statement in settings:
                    cursor.execute(statement)
            connection.commit()
        except BaseException:
            connection.close()
            raise

    event.listen(engine, "connect", on_connect)
    return engine
