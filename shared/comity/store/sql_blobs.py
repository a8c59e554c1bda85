"""Small blobs in a store's database: durable with what is written beside them, where a file each would cost a sync each."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection

from sqlalchemy import bindparam, delete, func, select

from comity.store import sql_schema as tables
from comity.store.sql_connection import Prepared, SqlConnection
from comity.store.sql_engine import upsert_of

_BLOBS = tables.blobs
_OF_PART = (_BLOBS.c.session == bindparam("session"), _BLOBS.c.part == bindparam("part"))
_ONE = (*_OF_PART, _BLOBS.c.digest == bindparam("digest"))
_USED = select(func.coalesce(func.sum(func.length(_BLOBS.c.content)), 0)).where(
    _BLOBS.c.session == bindparam("session")
)


_MOST_RECENT = 64
"""Blobs that are kept in memory as well."""

_Key = tuple[str, str, bytes]


class SqlBlobs:
    """Implements `SmallBlobs`. What was written or read last is in memory too, and is asked of no database.

    Args:
        database: The connection.
    """

    def __init__(self, database: SqlConnection) -> None:
        self._database = database
        dialect = database.engine.dialect
        add = upsert_of(dialect.name)(_BLOBS).on_conflict_do_nothing(index_elements=["session", "part", "digest"])
        self._add = Prepared(add, dialect, ("session", "part", "digest", "content"))
        self._find = Prepared(select(_BLOBS.c.content).where(*_ONE), dialect)
        self._digests = Prepared(select(_BLOBS.c.digest).where(*_OF_PART), dialect)
        self._remove = Prepared(delete(_BLOBS).where(*_ONE), dialect)
        self._recent = _Recent()

    def add(self, session: str, part: str, digest: bytes, content: memoryview) -> None:
        """See `SmallBlobs.add`.

        Raises:
            StorageError: It cannot be written.
        """
        row = {"session": session, "part": part, "digest": digest, "content": content}
        with self._database.working() as connection:
            self._add.execute(connection, row)
            self._database.note_change()
            self._recent.put((session, part, digest), bytes(content), self._database.rolled_back)

    def find(self, session: str, part: str, digest: bytes) -> bytes | None:
        """See `SmallBlobs.find`.

        Raises:
            StorageError: It cannot be read.
        """
        key = session, part, digest
        if (known := self._recent.get(key, self._database.rolled_back)) is not None:
            return known
        with self._database.working() as connection:
            row = self._find.execute(connection, {"session": session, "part": part, "digest": digest}).fetchone()
            if row is None:
                return None
            content = bytes(row[0])
            self._recent.put(key, content, self._database.rolled_back)
        return content

    def digests(self, session: str, part: str) -> set[bytes]:
        """See `SmallBlobs.digests`.

        Raises:
            StorageError: They cannot be read.
        """
        with self._database.working() as connection:
            rows = self._digests.execute(connection, {"session": session, "part": part}).fetchall()
        return {bytes(row[0]) for row in rows}

    def remove(self, session: str, part: str, digests: Collection[bytes]) -> None:
        """See `SmallBlobs.remove`.

        Raises:
            StorageError: It cannot be written.
        """
        if not digests:
            return
        with self._database.working() as connection:
            for digest in digests:
                self._recent.drop(session, part, digest)
                self._remove.execute(connection, {"session": session, "part": part, "digest": digest})

    def sessions(self) -> set[str]:
        """See `SmallBlobs.sessions`.

        Raises:
            StorageError: They cannot be read.
        """
        with self._database.working() as connection:
            return set(connection.scalars(select(_BLOBS.c.session).distinct()))

    def used(self, session: str) -> int:
        """See `SmallBlobs.used`.

        Raises:
            StorageError: They cannot be read.
        """
        with self._database.working() as connection:
            return int(connection.scalar(_USED, {"session": session}) or 0)

    def drop(self, session: str) -> None:
        """See `SmallBlobs.drop`.

        Raises:
            StorageError: It cannot be written.
        """
        with self._database.working() as connection:
            self._recent.drop(session)
            connection.execute(delete(_BLOBS).where(_BLOBS.c.session == session))


class _Recent:
    """What was written or read last, for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: OrderedDict[_Key, bytes] = OrderedDict()
        self._rolled_back = 0

    def get(self, key: _Key, rolled_back: int) -> bytes | None:
        """A blob, unless a transaction came to nothing since it was put here: it may have been written in that."""
        with self._lock:
            self._forget(rolled_back)
            found = self._blobs.get(key)
            if found is not None:
                self._blobs.move_to_end(key)
            return found

    def put(self, key: _Key, content: bytes, rolled_back: int) -> None:
        """Remembers a blob."""
        with self._lock:
            self._forget(rolled_back)
            self._blobs[key] = content
            self._blobs.move_to_end(key)
            while len(self._blobs) > _MOST_RECENT:
                self._blobs.popitem(last=False)

    def drop(self, session: str, part: str | None = None, digest: bytes = b"") -> None:
        """Forgets a blob; of a session without a part, all."""
        with self._lock:
            if part is not None:
                self._blobs.pop((session, part, digest), None)
                return
            for key in [each for each in self._blobs if each[0] == session]:
                del self._blobs[key]

    def _forget(self, rolled_back: int) -> None:
        if rolled_back != self._rolled_back:
            self._rolled_back = rolled_back
            self._blobs.clear()
