"""When what is written is durable: before anything leaves, and after a loss of power with nothing missing before its end."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from federated_count.v1.federated_count_pb2 import AddRequest

from comity.blobs.blob_files import SMALL
from comity.blobs.blob_store import of_node
from comity.contract import Contract
from comity.errors import StorageCorrupted, StorageFailed
from comity.ledger.ledger import Fact, in_round
from comity.ledger.verification import verify
from comity.session.gate import EgressGate
from comity.session.policy import Policy
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.store.store import Record, StoredSession
from comity.tensors import Blob
from comity.wire.v1.blobs_pb2 import BlobStat

SESSION = StoredSession("s-1", {"rounds": 3}, {"party": "clinic"}, ({"party": "hospital"},))


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often the disk was waited for by `sync`, since this was last asked."""
    seen, real = [], os.fdatasync

    def note(descriptor: int) -> None:
        seen.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", note)

    def since() -> int:
        count = len(seen)
        seen.clear()
        return count

    return since


def fact(number: int, matter: str = "intended") -> Fact:
    return Fact(matter, "s-1", in_round(1), "hospital", "sent", "checkpoint", f"{number:064x}", 10)  # type: ignore[arg-type]


def test_what_is_written_waits_for_the_disk_once_and_only_when_it_has_to(
    tmp_path: Path, synced: Callable[[], int]
) -> None:
    with closing(SqlStore(store_url(tmp_path))) as store:
        store.sync()
        synced()
        store.sync()
        assert synced() == 0
        for number in range(5):
            store.record(fact(number))
            store.append("s-1", Record("offered", number))
        of_node(tmp_path, store.small_blobs).keeper("s-1").write(Blob.of(b"weights"))
        assert synced() == 0
        store.sync()
        store.sync()
        assert synced() == 1
        # That something arrived is told again by whoever has it, and what is gone may be there once more.
        store.record(fact(1, "delivered"))
        of_node(tmp_path, store.small_blobs).drop("s-1")
        store.sync()
        assert synced() == 0


def test_a_session_is_kept_before_anybody_hears_that_it_is(tmp_path: Path, synced: Callable[[], int]) -> None:
    with closing(SqlStore(store_url(tmp_path))) as store:
        store.save(SESSION)
        assert synced() == 1
        with store.transaction():
            store.save(SESSION)
            store.record(fact(1))
            assert synced() == 0
        assert synced() == 1


def test_what_is_taken_back_waits_for_nothing(tmp_path: Path, synced: Callable[[], int]) -> None:
    with closing(SqlStore(store_url(tmp_path))) as store:
        with pytest.raises(RuntimeError), store.transaction():
            store.save(SESSION)
            raise RuntimeError
        store.sync()
        assert synced() == 0


def test_those_who_wait_at_a_time_have_a_sync_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, first, go_on, count = os.fdatasync, threading.Event(), threading.Event(), []

    def slow(descriptor: int) -> None:
        count.append(descriptor)
        first.set()
        assert go_on.wait(60)
        real(descriptor)

    with closing(SqlStore(store_url(tmp_path))) as store:
        store.record(fact(0))
        monkeypatch.setattr(os, "fdatasync", slow)
        threads = [threading.Thread(target=store.sync)]
        threads[0].start()
        assert first.wait(60)
        # Written while the disk is busy: one more sync is for all of them.
        for number in range(1, 6):
            store.record(fact(number))
        threads += [threading.Thread(target=store.sync) for _ in range(5)]
        for thread in threads[1:]:
            thread.start()
        go_on.set()
        for thread in threads:
            thread.join(60)
    assert len(count) == 2


def test_after_a_disk_that_failed_nothing_is_said_to_be_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fdatasync

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with closing(SqlStore(store_url(tmp_path))) as store:
        store.record(fact(0))
        monkeypatch.setattr(os, "fdatasync", failing)
        with pytest.raises(StorageFailed, match="the disk fails"):
            store.sync()
        # What was not written may be gone by now, and no later sync would tell.
        monkeypatch.setattr(os, "fdatasync", real)
        with pytest.raises(StorageFailed, match="start the node again"):
            store.sync()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.8, 0.99])
def test_a_loss_of_power_leaves_what_was_synced_and_nothing_without_what_was_before_it(
    tmp_path: Path, share: float
) -> None:
    node, lost = tmp_path / "node", tmp_path / "lost"
    node.mkdir()
    with closing(SqlStore(store_url(node))) as store:
        keeper = of_node(node, store.small_blobs).keeper("s-1")

        def write(numbers: range) -> None:
            for number in numbers:
                blob = keeper.write(Blob.of(f"weights {number}".encode() * 500))
                store.append("s-1", Record("offered", number, {"digest": blob.hex}))
                store.record(fact(number))

        store.save(SESSION)
        write(range(10))
        store.sync()
        log = Path(f"{node / 'comity.db'}-wal")
        durable = log.stat().st_size
        write(range(10, 30))
        shutil.copytree(node, lost)
        whole = log.stat().st_size
    # The disk has what was synced for sure, and of what follows some part.
    os.truncate(lost / log.name, durable + int(share * (whole - durable)))
    with closing(SqlStore(store_url(lost))) as store:
        verify(store.chains())
        records, kept = store.records("s-1"), of_node(lost, store.small_blobs).keeper("s-1")
        assert 10 <= len(records) <= 30
        assert [each.round for each in records] == list(range(len(records)))
        assert all(kept.read(bytes.fromhex(str(each.fields["digest"]))) for each in records)
        assert len(list(store.entries())) in {len(records) - 1, len(records)}


def test_small_blobs_are_no_files_and_large_ones_are(tmp_path: Path) -> None:
    small, large = Blob.of(bytes(SMALL)), Blob.of(bytes(SMALL + 1))
    with closing(SqlStore(store_url(tmp_path))) as store:
        keeper = of_node(tmp_path, store.small_blobs).keeper("s-1")
        for blob in (small, large):
            keeper.write(blob)
        assert [path.name for path in (tmp_path / "blobs" / "s-1").iterdir()] == [large.hex]
        assert keeper.digests() == {small.digest, large.digest}


def test_small_blobs_that_were_written_last_are_asked_of_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqlStore(store_url(tmp_path))) as store:
        keeper = of_node(tmp_path, store.small_blobs).keeper("s-1")
        kept = keeper.write(Blob.of(b"weights"))
        with monkeypatch.context() as patch:
            patch.setattr("comity.store.sql_connection.SqlConnection.working", lambda _: pytest.fail("it was asked"))
            found = keeper.read(kept.digest)
        assert found is not None
        # Whoever writes to what was read changes nothing for others.
        found.data[0] = 0
        again = keeper.read(kept.digest)
        assert again is not None
        assert bytes(again.data) == b"weights"
        keeper.remove([kept.digest])
        assert keeper.read(kept.digest) is None


def test_a_small_blob_of_a_transaction_that_came_to_nothing_is_not_there(tmp_path: Path) -> None:
    with closing(SqlStore(store_url(tmp_path))) as store:
        keeper = of_node(tmp_path, store.small_blobs).keeper("s-1")
        made = Blob.of(b"weights")
        with pytest.raises(RuntimeError), store.transaction():
            keeper.write(made)
            raise RuntimeError
        assert keeper.read(made.digest) is None


def test_a_small_blob_that_was_changed_is_named(tmp_path: Path) -> None:
    with closing(SqlStore(store_url(tmp_path))) as store:
        blob = of_node(tmp_path, store.small_blobs).keeper("s-1").write(Blob.of(b"weights"))
    with closing(sqlite3.connect(tmp_path / "comity.db")) as database, database:
        database.execute("UPDATE blobs SET content = ?", (b"weightS",))
    with (
        closing(SqlStore(store_url(tmp_path))) as store,
        pytest.raises(StorageCorrupted, match="a blob of session s-1 was changed"),
    ):
        of_node(tmp_path, store.small_blobs).keeper("s-1").read(blob.digest)


def test_nothing_leaves_before_what_led_to_it_is_durable(
    tmp_path: Path, synced: Callable[[], int], make_contract: Callable[..., Contract]
) -> None:
    egress = ("contract", "checkpoint", "count")
    with closing(SqlStore(store_url(tmp_path))) as store:
        gate = EgressGate(make_contract(egress=egress), Policy(egress=egress), store, "hospital")
        gate.send_blob(Blob.of(b"weights"), "checkpoint", in_round(1))
        assert synced() == 1
        store.append("s-1", Record("finished", 1))
        assert synced() == 0
        # Recorded with nobody, as a message that only controls, it waits all the same.
        gate.send(BlobStat(held=1))
        assert synced() == 1
        gate.send(AddRequest(round=1, count=3))
        assert synced() == 1
        gate.deliver(AddRequest(round=1, count=3))
        gate.send(BlobStat(held=1))
        assert synced() == 0
        # Its sender counts on it from when it is told that it is here.
        gate.admit_blob(b"d" * 32, "checkpoint", in_round(1), 10)
        gate.send(BlobStat(held=10, complete=True))
        assert synced() == 1
