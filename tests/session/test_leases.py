"""Of several processes one works on a session."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from comity.errors import StateInUse, StorageFailed
from comity.store.leases import Leases, owner_in
from comity.store.memory_store import MemoryStore
from comity.store.store import Lease

PATIENCE_S = 10.0
LONG = timedelta(hours=1)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def leases(store: MemoryStore) -> Iterator[Leases]:
    with closing(Leases(store, "one", LONG)) as opened:
        yield opened


def never() -> None:
    raise AssertionError("the lease is lost")


def test_one_process_at_a_time(store: MemoryStore, leases: Leases) -> None:
    leases.hold("s-1", never)
    with closing(Leases(store, "two", LONG)) as others:
        with pytest.raises(
            StateInUse, match="another process works on session s-1: expected no other process, received one"
        ):
            others.hold("s-1", never)
        others.hold("s-2", never)
        leases.drop("s-1")
        others.hold("s-1", never)
        with pytest.raises(StateInUse, match="received two"):
            leases.hold("s-1", never)


def test_whoever_starts_again_is_the_same(store: MemoryStore, leases: Leases) -> None:
    leases.hold("s-1", never)
    with closing(Leases(store, "one", LONG)) as again:
        again.hold("s-1", never)


def test_a_process_that_stops_lets_go(store: MemoryStore) -> None:
    with closing(Leases(store, "one", LONG)) as first:
        first.hold("s-1", never)
        first.hold("s-2", never)
    with closing(Leases(store, "two", LONG)) as second:
        second.hold("s-1", never)
        second.hold("s-2", never)
        first.drop("s-1")
        assert store.take_lease("s-1", "three", LONG).owner == "two"


class Watched(MemoryStore):
    """Counts renewals; fails, or has been taken over, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.renewed = threading.Semaphore(0)
        self.fails = False

    def take_lease(self, session: str, owner: str, duration: timedelta) -> Lease:
        try:
            if self.fails:
                raise StorageFailed("the disk is full")
            return super().take_lease(session, owner, duration)
        finally:
            self.renewed.release()

    def wait(self, times: int) -> None:
        for _ in range(times):
            assert self.renewed.acquire(timeout=PATIENCE_S)


def test_a_lease_is_renewed_while_it_is_held() -> None:
    store = Watched()
    with closing(Leases(store, "one", timedelta(seconds=0.03))) as leases:
        leases.hold("s-1", never)
        store.wait(4)
        # A disk that fails is noticed by the session.
        store.fails = True
        store.wait(2)
        store.fails = False
        store.wait(3)
        leases.drop("s-1")


def test_whoever_lost_it_is_told() -> None:
    store, told = Watched(), threading.Event()
    with closing(Leases(store, "one", timedelta(seconds=0.03))) as leases:
        leases.hold("s-1", told.set)
        with store.transaction():
            store.drop_lease("s-1", "one")
            store.take_lease("s-1", "two", LONG)
        assert told.wait(PATIENCE_S)
        leases.drop("s-1")
    assert store.take_lease("s-1", "one", LONG).owner == "two"


def test_the_owner_is_the_folders(tmp_path: Path) -> None:
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    assert owner_in(folders[0]) == owner_in(folders[0]) != owner_in(folders[1])
