"""A store in a database: SQLite in a node's `state_dir`, or PostgreSQL by URL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from blake3 import blake3
from sqlalchemy import URL, Connection, Select, bindparam, delete, func, insert, inspect, or_, select

from comity.contract import Json, canonical
from comity.errors import SchemaMismatch, StateInUse
from comity.ledger.chain import Clock, as_time, utc_now
from comity.ledger.ledger import Chain, Crossed, Entry, Fact, Head, LedgerSummary, Matter
from comity.store import sql_schema as tables
from comity.store.sql_blobs import SqlBlobs
from comity.store.sql_connection import SqlConnection
from comity.store.sql_engine import be_alone, log_of, make_engine, parsed, place_of, upsert_of
from comity.store.sql_errors import damaged
from comity.store.sql_ledger import CLOCK_SLACK, SqlLedger
from comity.store.store import FINISHED, ON, Lease, Record, SmallBlobs, StoredSession, Waiting

__all__ = ["CLOCK_SLACK", "SqlStore"]

# Statements are built once: what they cost then is the database's, not ours.
_META = select(tables.meta.c.value).where(tables.meta.c.key == bindparam("wanted"))
_SESSIONS = select(*(column for column in tables.sessions.c if column.name != "position")).order_by(
    tables.sessions.c.position
)
_ONGOING = _SESSIONS.where(tables.sessions.c.state.in_(ON))
_BEGUN = (
    select(func.count())
    .select_from(tables.sessions)
    .where(tables.sessions.c.initiator == bindparam("initiator"), tables.sessions.c.begun >= bindparam("since"))
)
_SESSION = _SESSIONS.where(tables.sessions.c.session == bindparam("name"))
_ADD_RECORD = insert(tables.journal)
_RECORDS = (
    select(*tables.journal.c["kind", "round", "fields", "time", "digest"].values())
    .where(tables.journal.c.session == bindparam("name"))
    .order_by(tables.journal.c.position)
)
_FORGET = delete(tables.journal).where(tables.journal.c.session == bindparam("name"), tables.journal.c.kind != FINISHED)
_TABLE_SIZE = select(func.pg_total_relation_size(bindparam("name")))
_LEASE = select(tables.leases).where(tables.leases.c.session == bindparam("name"))
_DROP_LEASE = delete(tables.leases).where(
    tables.leases.c.session == bindparam("name"), tables.leases.c.owner == bindparam("holder")
)


class SqlStore:
    """A `Store` in a database, for one party's processes and any number of their threads.

    Args:
        url: `sqlite:///PATH` or `postgresql://…`; the tables are made where there are none.
        party: Whose store it is; another's is refused. Empty where that is not known.
        read_only: Change nothing and make nothing: for looking at the store of a node, which may be running.
        durable: Have `sync` wait for the disk.
        clock: Says what time it is.

    Raises:
        InvalidValue: The URL cannot be used.
        MissingFile: There is no store to read.
        StorageError: The store cannot be used: it is damaged, of another version, or later than the clock.
        StateInUse: It is another party's.
        LedgerBroken: The ledger does not end where it should.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        party: str = "",
        read_only: bool = False,
        durable: bool = True,
        clock: Clock = utc_now,
    ) -> None:
        where = parsed(url)
        dialect = where.get_backend_name()
        self._place = place_of(where)
        self._party = party
        self._read_only = read_only
        self._clock = clock
        engine = make_engine(where, read_only=read_only, durable=durable)
        self._database = SqlConnection(engine, self._place, log_of(where) if durable and not read_only else None)
        # In a server's database, which may be far away, tensors are not well kept.
        self.small_blobs: SmallBlobs | None = SqlBlobs(self._database) if dialect == "sqlite" else None
        self._ledger = SqlLedger(self._database, clock, dialect)
        self._database.attach(self._ledger)
        upsert = upsert_of(dialect)
        added = upsert(tables.sessions)
        new = {
            name: added.excluded[name]
            for name in (
                "contract",
                "own",
                "peers",
                "state",
                "result",
                "begun",
                "waits",
                "promised",
                "initiator",
                "digest",
            )
        }
        self._save_session = added.on_conflict_do_update(index_elements=["session"], set_=new)
        taken = upsert(tables.leases)
        self._take_lease = taken.on_conflict_do_update(
            index_elements=["session"],
            set_={name: taken.excluded[name] for name in ("owner", "until")},
            where=or_(tables.leases.c.owner == taken.excluded.owner, tables.leases.c.until <= bindparam("now")),
        )
        self._claim = upsert(tables.meta).on_conflict_do_nothing(index_elements=["key"])
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        with self._database.working() as connection:
            if connection.dialect.name == "sqlite":
                # A node finds its records by the indexes, which the quick check leaves out.
                check = "quick_check" if self._read_only else "integrity_check"
                found = connection.exec_driver_sql(f"PRAGMA {check}(1)").scalar()
                if found != "ok":
                    raise damaged(self._place, found)
            if not self._read_only:
                be_alone(connection)
            is_new = self._require_schema(connection)
            if not self._read_only:
                self._require_party(connection)
                if not is_new:
                    self._ledger.require_sound(connection)

    def _require_schema(self, connection: Connection) -> bool:
        """Checks that the tables are of this version; makes them where there are none, and returns whether it did."""
        there = set(inspect(connection).get_table_names())
        if not there & {tables.meta.name, tables.ledger.name} and not self._read_only:
            tables.metadata.create_all(connection)
            connection.execute(insert(tables.meta).values(key="schema", value=str(tables.VERSION)))
            self._ledger.begin(connection)
            return True
        if not there >= {tables.meta.name, tables.ledger.name}:
            raise damaged(self._place, f"no tables {tables.meta.name} and {tables.ledger.name}")
        value = str(connection.scalar(_META, {"wanted": "schema"}))
        if not value.isdecimal():
            raise damaged(self._place, f"a schema of version {value}")
        if int(value) != tables.VERSION:
            later = int(value) > tables.VERSION
            raise SchemaMismatch(
                f"{self._place} was written by {'a later' if later else 'an earlier'} version",
                expected=f"schema {tables.VERSION}",
                received=f"schema {value}",
                action="upgrade comity, or begin with another state_dir"
                if later
                else "export its ledger with the version that wrote it, and begin with another state_dir",
            )
        return False

    def _require_party(self, connection: Connection) -> None:
        if not self._party:
            return
        connection.execute(self._claim, {"key": "party", "value": self._party})
        party = connection.scalar(_META, {"wanted": "party"})
        if party != self._party:
            raise StateInUse(
                f"{self._place} is another party's store",
                expected=self._party,
                received=party,
                action="give each node a state_dir or database of its own",
            )

    def transaction(self) -> AbstractContextManager[None]:
        """What is written inside is there as a whole or not at all, and durable after the next `sync`. Transactions nest.

        Other threads wait until it is over.

        Raises:
            StorageError: It cannot be begun or committed; nothing of it is there.
        """
        return self._database.transaction()

    def sync(self) -> None:
        """See `Store.sync`.

        Raises:
            StorageError: The disk fails.
        """
        self._database.sync()

    def record(self, fact: Fact) -> bool:
        """See `SqlLedger.record`."""
        return self._ledger.record(fact)

    def chains(self, session: str | None = None, peer: str | None = None) -> Sequence[Chain]:
        """See `SqlLedger.chains`."""
        return self._ledger.chains(session, peer)

    def entries(self, session: str | None = None, peer: str | None = None) -> Iterable[Entry]:
        """See `SqlLedger.entries`."""
        return self._ledger.entries(session, peer)

    def facts(self, matter: Matter) -> Sequence[Fact]:
        """See `SqlLedger.facts`."""
        return self._ledger.facts(matter)

    def summary(self, tail: int) -> LedgerSummary:
        """See `SqlLedger.summary`."""
        return self._ledger.summary(tail)

    def crossed(self, since: str) -> Sequence[Crossed]:
        """See `SqlLedger.crossed`."""
        return self._ledger.crossed(since)

    def head(self, session: str = "", peer: str = "") -> Head:
        """See `SqlLedger.head`."""
        return self._ledger.head(session, peer)

    def save(self, session: StoredSession) -> None:
        """See `Store.save`.

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
            "initiator": session.initiator,
        }
        with self._database.working() as connection:
            connection.execute(self._save_session, row | {"digest": _digest(row.values())})
            self._database.note_change(urgent=True)

    def sessions(self) -> Sequence[StoredSession]:
        """All sessions, in the order in which they were added.

        Raises:
            StorageError: They cannot be read, or are not what was written.
        """
        return self._read(_SESSIONS)

    def ongoing(self) -> Sequence[StoredSession]:
        """See `Store.ongoing`.

        Raises:
            StorageError: They cannot be read, or are not what was written.
        """
        return self._read(_ONGOING)

    def _read(self, wanted: Select[Any]) -> Sequence[StoredSession]:
        with self._database.working() as connection:
            rows = connection.execute(wanted).all()
        return [self._session(row) for row in rows]

    def begun(self, initiator: str, since: str) -> int:
        """See `Store.begun`.

        Raises:
            StorageError: They cannot be counted.
        """
        with self._database.working() as connection:
            return int(connection.scalar(_BEGUN, {"initiator": initiator, "since": since}) or 0)

    def find(self, session: str) -> StoredSession | None:
        """The session of an identifier, None where there is none.

        Raises:
            StorageError: It cannot be read, or is not what was written.
        """
        with self._database.working() as connection:
            row = connection.execute(_SESSION, {"name": session}).first()
        return None if row is None else self._session(row)

    def _session(self, row: Sequence[Any]) -> StoredSession:
        *values, digest = row
        name, contract, own, peers, state, result, begun, waits, promised, _ = values
        what = f"session {name}"
        self._require_digest(values, digest, what)
        try:
            found = tuple(Waiting(**each) for each in self._json(waits, what))
            members = tuple(dict(each) for each in self._json(peers, what))
        except (TypeError, ValueError) as error:
            raise damaged(self._place, f"{what} with lists of something else") from error
        agreed, mine, ended = (self._object(each, what) for each in (contract, own, result))
        return StoredSession(name, agreed, mine, members, state, ended, begun, found, promised)

    def append(self, session: str, record: Record) -> None:
        """Adds a record to a session's journal.

        Raises:
            StorageError: It cannot be written.
        """
        row = {"session": session, "kind": record.kind, "round": record.round, "fields": _text(record.fields)}
        row["time"] = record.time
        with self._database.working() as connection:
            connection.execute(_ADD_RECORD, row | {"digest": _digest(row.values())})
            self._database.note_change()

    def records(self, session: str) -> Sequence[Record]:
        """A session's journal, in order.

        Raises:
            StorageError: It cannot be read, or is not what was written.
        """
        with self._database.working() as connection:
            rows = connection.execute(_RECORDS, {"name": session}).all()
        found = []
        for kind, round, fields, time, digest in rows:
            self._require_digest([session, kind, round, fields, time], digest, f"the journal of session {session}")
            found.append(Record(kind, round, self._object(fields, f"the journal of session {session}"), time))
        return found

    def _object(self, text: str, what: str) -> dict[str, Any]:
        """A JSON object that was kept; whoever edits the store can make the digest anew, too."""
        value = self._json(text, what)
        if not isinstance(value, dict):
            raise damaged(self._place, f"{what} with something else than a JSON object")
        return value

    def _json(self, text: str, what: str) -> Any:
        try:
            return json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise damaged(self._place, f"{what} with something else than JSON") from error

    def _require_digest(self, values: Iterable[object], digest: object, what: str) -> None:
        try:
            is_same = _digest(values) == digest
        except (TypeError, ValueError):
            # Columns of SQLite take values of any type.
            is_same = False
        if not is_same:
            raise damaged(self._place, f"{what} with another content than was written")

    def forget(self, session: str) -> None:
        """See `Store.forget`.

        Raises:
            StorageError: It cannot be written.
        """
        with self._database.working() as connection:
            connection.execute(_FORGET, {"name": session})

    def take_lease(self, session: str, owner: str, duration: timedelta) -> Lease:
        """See `Store.take_lease`.

        Raises:
            StorageError: It cannot be written.
        """
        now = self._clock()
        row = {"session": session, "owner": owner, "until": as_time(now + duration)}
        with self._database.working() as connection:
            connection.execute(self._take_lease, row | {"now": as_time(now)})
            return Lease(*connection.execute(_LEASE, {"name": session}).one())

    def drop_lease(self, session: str, owner: str) -> None:
        """See `Store.drop_lease`.

        Raises:
            StorageError: It cannot be written.
        """
        with self._database.working() as connection:
            connection.execute(_DROP_LEASE, {"name": session, "holder": owner})

    def size(self) -> int:
        """See `Store.size`; room that is free for what comes is left out.

        Raises:
            StorageError: It cannot be read.
        """
        with self._database.working() as connection:
            if connection.dialect.name == "sqlite":
                pages, free, page = (
                    int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
                    for name in ("page_count", "freelist_count", "page_size")
                )
                return (pages - free) * page
            return sum(int(connection.scalar(_TABLE_SIZE, {"name": name}) or 0) for name in tables.metadata.tables)

    def close(self) -> None:
        """Lets go of files and connections. Closing twice is fine."""
        self._database.close()


def _text(value: Mapping[str, Json]) -> str:
    return canonical(value).decode() if value else "{}"


def _digest(values: Iterable[object]) -> str:
    return blake3(canonical(list(values))).hexdigest()
