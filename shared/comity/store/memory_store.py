"""A store that ends with its process: for simulation and tests, and the measure of what durability costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from comity.ledger.chain import Clock, Tail, as_kept, utc_now
from comity.ledger.ledger import Entry, Fact, Head
from comity.store.store import FINISHED, Record, StoredSession


class MemoryStore:
    """A `Store` in memory.

    Args:
        clock: Says what time it is.
    """

    def __init__(self, *, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._tail = Tail()
        self._entries: list[Entry] = []
        self._identities: set[str] = set()
        self._sessions: dict[str, StoredSession] = {}
        self._journals: dict[str, list[Record]] = {}
        # What takes each write of the transactions that are on back, in the order of the writes.
        self._undo: list[Callable[[], object]] = []
        self._depth = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside is there as a whole or not at all; others wait until it is. Transactions nest."""
        with self._lock:
            mark = len(self._undo)
            self._depth += 1
            try:
                yield
            except BaseException:
                while len(self._undo) > mark:
                    self._undo.pop()()
                raise
            finally:
                self._depth -= 1
                if not self._depth:
                    self._undo.clear()

    def record(self, fact: Fact) -> bool:
        """Appends an entry, unless the same fact stands there already; returns whether it was new."""
        with self.transaction():
            identity = fact.identity
            if identity in self._identities:
                return False
            before = self._tail
            entry = before.next(fact, self._clock())
            self._entries.append(entry)
            self._identities.add(identity)
            self._tail = Tail.after(entry)
            self._undo.append(lambda: self._take_back(identity, before))
        return True

    def _take_back(self, identity: str, tail: Tail) -> None:
        self._entries.pop()
        self._identities.remove(identity)
        self._tail = tail

    def entries(self, session: str | None = None) -> Sequence[Entry]:
        """The entries that are there now: all of them, or those of one session."""
        with self._lock:
            return tuple(each for each in self._entries if session is None or each.fact.session == session)

    def head(self) -> Head:
        """The end of the chain."""
        with self._lock:
            return self._tail.head

    def save(self, session: StoredSession) -> None:
        """Adds a session, or replaces what is kept of it."""
        name = session.session
        kept = replace(
            session,
            contract=as_kept(session.contract),
            own=as_kept(session.own),
            peers=tuple(as_kept(each) for each in session.peers),
            result=as_kept(session.result),
        )
        with self.transaction():
            before = self._sessions.get(name)
            self._sessions[name] = kept
            if before is None:
                self._undo.append(lambda: self._sessions.pop(name))
            else:
                self._undo.append(lambda: self._sessions.update({name: before}))

    def sessions(self) -> Sequence[StoredSession]:
        """All sessions, in the order in which they were added."""
        with self._lock:
            return tuple(self._sessions.values())

    def find(self, session: str) -> StoredSession | None:
        """The session of an identifier, None where there is none."""
        with self._lock:
            return self._sessions.get(session)

    def append(self, session: str, record: Record) -> None:
        """Adds a record to a session's journal."""
        kept = replace(record, fields=as_kept(record.fields))
        with self.transaction():
            journal = self._journals.setdefault(session, [])
            journal.append(kept)
            self._undo.append(journal.pop)

    def records(self, session: str) -> Sequence[Record]:
        """A session's journal, in order."""
        with self._lock:
            return tuple(self._journals.get(session, ()))

    def forget(self, session: str) -> None:
        """See `Store.forget`."""
        with self.transaction():
            journal = self._journals.pop(session, None)
            if journal is not None:
                self._undo.append(lambda: self._journals.update({session: journal}))
                self._journals[session] = [each for each in journal if each.kind == FINISHED]

    def close(self) -> None:
        """There is nothing to let go of."""
