"""A store that ends with its process: for simulation and tests, and the measure of what durability costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from comity.ledger.chain import Clock, Tail, as_kept, as_time, closed, utc_now
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
    bytes_by_kind,
    ending_of,
    opening_of,
)
from comity.store.store import FINISHED, Lease, Record, SmallBlobs, StoredSession


@dataclass(slots=True)
class _Chain:
    tail: Tail = field(default_factory=Tail)
    entries: list[Entry] = field(default_factory=list)


class MemoryStore:
    """A `Store` in memory.

    Args:
        clock: Says what time it is.
    """

    def __init__(self, *, clock: Clock = utc_now) -> None:
        self.small_blobs: SmallBlobs | None = None
        self._clock = clock
        self._lock = threading.RLock()
        self._chains: dict[ChainName, _Chain] = {OWN: _Chain()}
        self._identities: set[str] = set()
        self._sessions: dict[str, StoredSession] = {}
        self._journals: dict[str, list[Record]] = {}
        self._leases: dict[str, Lease] = {}
        # What takes each write of the open transactions back, in the order of the writes.
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
        """See `Ledger.record`.

        Raises:
            UnknownSession: The session has ended with this peer.
        """
        with self.transaction():
            identity = fact.identity
            if identity in self._identities:
                return False
            name = fact.chain
            chain = self._chains.get(name)
            if chain is None:
                chain = self._chains[name] = _Chain()
                self._undo.append(lambda: self._chains.pop(name))
                self.record(opening_of(fact))
            before = chain.tail
            if before.ended:
                raise closed(fact)
            entry = before.next(fact, self._clock())
            chain.entries.append(entry)
            chain.tail = Tail.after(entry)
            self._identities.add(identity)
            self._undo.append(lambda: self._take_back(identity, chain, before))
            if chain.tail.ended:
                self.record(ending_of(fact, chain.tail.head))
        return True

    def _take_back(self, identity: str, chain: _Chain, tail: Tail) -> None:
        chain.entries.pop()
        chain.tail = tail
        self._identities.remove(identity)

    def chains(self, session: str | None = None, peer: str | None = None) -> Sequence[Chain]:
        """See `Ledger.chains`; as they are now."""
        with self._lock:
            return tuple(
                Chain(name, each.tail.head, tuple(each.entries))
                for name, each in self._chains.items()
                if session in {None, name.session} and peer in {None, name.peer}
            )

    def entries(self, session: str | None = None, peer: str | None = None) -> Sequence[Entry]:
        """See `Ledger.entries`; those that are there now."""
        chains = self.chains(session, peer)
        return tuple(entry for chain in chains if chain.name != OWN for entry in chain.entries)

    def facts(self, matter: Matter) -> Sequence[Fact]:
        """See `Ledger.facts`."""
        return [entry.fact for entry in self.entries() if entry.fact.matter == matter]

    def summary(self, tail: int) -> LedgerSummary:
        """See `Ledger.summary`."""
        entries = self.entries()
        last = sorted(entries, key=lambda entry: entry.time)[-tail:]
        return LedgerSummary(len(entries), bytes_by_kind(entries, "sent"), bytes_by_kind(entries, "received"), last)

    def crossed(self, since: str) -> Sequence[Crossed]:
        """See `Ledger.crossed`."""
        sizes: dict[tuple[str, str, str], int] = {}
        for entry in self.entries():
            fact = entry.fact
            if fact.matter == "delivered" and entry.time >= since:
                key = str(fact.direction), fact.peer, str(fact.kind)
                sizes[key] = sizes.get(key, 0) + fact.size
        return [Crossed(*key, size) for key, size in sorted(sizes.items())]

    def head(self, session: str = "", peer: str = "") -> Head:
        """See `Ledger.head`."""
        with self._lock:
            chain = self._chains.get(ChainName(session, peer))
            return Head() if chain is None else chain.tail.head

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

    def ongoing(self) -> Sequence[StoredSession]:
        """See `Store.ongoing`."""
        with self._lock:
            return [kept for kept in self._sessions.values() if kept.is_on]

    def begun(self, initiator: str, since: str) -> int:
        """See `Store.begun`."""
        with self._lock:
            return sum(each.initiator == initiator and each.begun >= since for each in self._sessions.values())

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

    def take_lease(self, session: str, owner: str, duration: timedelta) -> Lease:
        """See `Store.take_lease`."""
        with self.transaction():
            now, before = self._clock(), self._leases.get(session)
            if before is not None and before.owner != owner and before.until > as_time(now):
                return before
            self._leases[session] = taken = Lease(session, owner, as_time(now + duration))
            self._undo.append(lambda: self._put_back(session, before))
            return taken

    def drop_lease(self, session: str, owner: str) -> None:
        """See `Store.drop_lease`."""
        with self.transaction():
            before = self._leases.get(session)
            if before is not None and before.owner == owner:
                del self._leases[session]
                self._undo.append(lambda: self._put_back(session, before))

    def _put_back(self, session: str, lease: Lease | None) -> None:
        if lease is None:
            self._leases.pop(session, None)
        else:
            self._leases[session] = lease

    def size(self) -> int:
        """See `Store.size`."""
        return 0

    def sync(self) -> None:
        """Nothing of it is durable."""

    def close(self) -> None:
        """There is nothing to let go of."""
