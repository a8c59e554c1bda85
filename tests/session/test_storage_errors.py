"""What can go wrong below a store: each is an error that names the thing, and nothing is half written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comity.errors import (
    ClockSteppedBack,
    ComityError,
    LedgerBroken,
    SchemaMismatch,
    StorageCorrupted,
    StorageError,
    StorageFailed,
)
from comity.ledger.ledger import Fact, in_round
from comity.ledger.verification import verify
from comity.store import sql_engine
from comity.store.places import store_url
from comity.store.sql_schema import VERSION
from comity.store.sql_store import CLOCK_SLACK, SqlStore
from comity.store.store import Record, Store, StoredSession

NOBODY = 65534


def write(store: Store, number: int, size: int = 1) -> None:
    """Something of everything, in one transaction."""
    with store.transaction():
        store.record(Fact("intended", "s-1", in_round(number), "hospital", "sent", "loss", f"{number}", 8))
        store.save(StoredSession("s-1", {"number": number}, {}))
        store.append("s-1", Record("offered", number, {"text": "x" * size}))
        store.record(Fact("delivered", "s-1", in_round(number), "hospital", "sent", "loss", f"{number}", 8))


def numbers(store: Store) -> list[int]:
    """What is there, which must be whole."""
    verify(store.chains())
    records = [each.round for each in store.records("s-1")]
    assert [each.fact.units.first for each in store.entries()] == [number for number in records for _ in range(2)]
    assert [each.contract for each in store.sessions()] == ([{"number": records[-1]}] if records else [])
    return records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a store in which a little is written."""
    store = SqlStore(store_url(tmp_path), durable=False)
    for number in range(3):
        write(store, number)
    store.take_lease("s-1", "node", timedelta(minutes=1))
    store.close()
    return tmp_path


@contextmanager
def full_by_mount() -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder on a disk that gets full, and what makes room on it."""
    folder = Path(tempfile.mkdtemp(prefix="comity-full-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "comity", folder], capture_output=True, text=True, check=False
    )
    try:
        if mounted.returncode != 0:
            pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
        yield folder, lambda: subprocess.run(["mount", "-o", "remount,size=8m", folder], check=True)
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        folder.rmdir()


@contextmanager
def full_by_limit() -> Iterator[tuple[Path, Callable[[], None]]]:
    """The same by a limit on the size of this process's files."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = Path(tempfile.mkdtemp(prefix="comity-full-"))

    def make_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, limits[1]))
        yield folder, make_room
    finally:
        make_room()
        shutil.rmtree(folder)


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder that everybody may enter, while this process is not root, to whom no file is read-only."""
    folder = Path(tempfile.mkdtemp(prefix="comity-read-only-"))
    folder.chmod(0o755)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(NOBODY)
        yield folder
    finally:
        os.seteuid(user)
        folder.chmod(0o700)
        shutil.rmtree(folder)


class TestFullDisk:
    @pytest.mark.parametrize("full", [full_by_mount, full_by_limit])
    def test_a_full_disk(self, full: Callable[[], contextmanager[tuple[Path, Callable[[], None]]]]) -> None:
        with ExitStack() as stack:
            folder, make_room = stack.enter_context(full())
            store = stack.enter_context(closing(SqlStore(store_url(folder))))
            written = 0
            for _ in range(3):
                with pytest.raises(StorageFailed, match=r"comity\.db cannot be used: .*nothing is half written"):
                    while written < 2000:
                        write(store, written, 1000)
                        written += 1
                # What was committed is there and can be read.
                assert numbers(store) == list(range(written))
            assert written > 20
            with pytest.raises(StorageFailed):
                write(store, written, 4 * 10**6)
            # With room it goes on.
            make_room()
            write(store, written, 1000)
            assert numbers(store) == list(range(written + 1))
            store.close()
            again = stack.enter_context(closing(SqlStore(store_url(folder))))
            assert numbers(again) == list(range(written + 1))

    def test_no_room_to_begin_with(self) -> None:
        with ExitStack() as stack:
            folder, _ = stack.enter_context(full_by_limit())
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            with pytest.raises(StorageFailed, match=r"comity\.db"):
                SqlStore(store_url(folder))


class TestReadOnly:
    def test_a_folder_that_cannot_be_written(self) -> None:
        with unprivileged() as folder:
            assert os.geteuid() != 0
            if folder.stat().st_uid == os.geteuid():
                folder.chmod(0o555)
            with pytest.raises(StorageFailed, match=r"comity\.db cannot be used: .*this user"):
                SqlStore(store_url(folder))
            assert list(folder.iterdir()) == []

    def test_a_store_that_cannot_be_written_can_be_read(self, folder: Path) -> None:
        with unprivileged() as elsewhere, ExitStack() as stack:
            os.seteuid(os.getuid())
            shutil.copy(folder / "comity.db", elsewhere)
            (elsewhere / "comity.db").chmod(0o444)
            elsewhere.chmod(0o555)
            if os.getuid() == 0:
                os.seteuid(NOBODY)
            with pytest.raises(StorageFailed, match=r"comity\.db cannot be used: it is read-only"):
                SqlStore(store_url(elsewhere))
            store = stack.enter_context(closing(SqlStore(store_url(elsewhere), read_only=True)))
            assert numbers(store) == [0, 1, 2]
            assert [each.name for each in elsewhere.iterdir()] == ["comity.db"]

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(StorageFailed, match=r"nowhere/comity\.db cannot be used: it cannot be opened"):
            SqlStore(store_url(tmp_path / "nowhere"))

    def test_another_process_that_holds_it(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sql_engine, "BUSY_S", 0.05)
        with closing(SqlStore(store_url(folder))) as store, closing(sqlite3.connect(folder / "comity.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageFailed, match=r"comity\.db cannot be used: another process holds it"):
                write(store, 3)
            with pytest.raises(StorageFailed, match="another process holds it"):
                SqlStore(store_url(folder))
            other.rollback()
            write(store, 3)
            assert numbers(store) == [0, 1, 2, 3]


PAGE = 4096


class TestDamage:
    def test_a_corrupted_page(self, folder: Path) -> None:
        whole = (folder / "comity.db").read_bytes()
        for page in range(len(whole) // PAGE):
            damaged = bytearray(whole)
            damaged[page * PAGE : page * PAGE + 64] = b"\xff" * 64
            (folder / "comity.db").write_bytes(damaged)
            for read_only in (False, True):
                with pytest.raises(StorageCorrupted, match=r"comity\.db.*restore a backup"):
                    SqlStore(store_url(folder), read_only=read_only)

    def test_a_corrupted_page_that_is_found_later(self, folder: Path) -> None:
        with closing(SqlStore(store_url(folder))) as store:
            with closing(sqlite3.connect(folder / "comity.db")) as other, other:
                root = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'journal'").fetchone()[0]
                # What the store has read it would not read again, had nobody written.
                other.execute("UPDATE meta SET value = value")
                other.commit()
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with (folder / "comity.db").open("r+b") as file:
                file.seek((root - 1) * PAGE)
                file.write(b"\xff" * 64)
            with pytest.raises(StorageCorrupted, match=r"comity\.db"):
                store.records("s-1")
            with pytest.raises(StorageCorrupted, match=r"comity\.db"):
                write(store, 3)
            assert len(list(store.entries())) == 6

    @pytest.mark.parametrize("content", [b"no database at all" * 500, b"\0" * 8192])
    def test_another_file(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "comity.db").write_bytes(content)
        with pytest.raises(StorageCorrupted, match=r"comity\.db"):
            SqlStore(store_url(tmp_path))
        assert (tmp_path / "comity.db").read_bytes() == content

    def test_a_truncated_file(self, folder: Path) -> None:
        whole = (folder / "comity.db").read_bytes()
        for size in (100, PAGE, len(whole) - PAGE, len(whole) - 1):
            (folder / "comity.db").write_bytes(whole[:size])
            with pytest.raises(StorageCorrupted, match=r"comity\.db"):
                SqlStore(store_url(folder))

    def test_another_database(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "comity.db")) as connection:
            connection.execute("CREATE TABLE ledger (a)")
        with pytest.raises(StorageCorrupted, match=r"comity\.db is damaged: received no tables"):
            SqlStore(store_url(tmp_path))

    @pytest.mark.parametrize("table", ["sessions", "journal"])
    def test_a_row_that_is_not_what_was_written(self, folder: Path, table: str) -> None:
        columns = {
            "sessions": ["contract", "own", "peers", "state", "result", "begun"],
            "journal": ["kind", "round", "fields"],
        }
        whole = (folder / "comity.db").read_bytes()
        for column in [*columns[table], "digest"]:
            (folder / "comity.db").write_bytes(whole)
            with closing(sqlite3.connect(folder / "comity.db")) as connection, connection:
                connection.execute(f"UPDATE {table} SET {column} = '3'")
            with closing(SqlStore(store_url(folder))) as store, pytest.raises(StorageCorrupted, match="s-1"):
                (store.sessions if table == "sessions" else lambda opened=store: opened.records("s-1"))()

    @given(data=st.data())
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_flipped_byte_is_found_or_does_no_harm(self, folder: Path, data: st.DataObject) -> None:
        file, copy = folder / "comity.db", folder / "whole"
        if not copy.exists():
            shutil.copy(file, copy)
        damaged = bytearray(copy.read_bytes())
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] ^= data.draw(st.integers(1, 255))
        for each in folder.glob("comity.db*"):
            each.unlink()
        file.write_bytes(damaged)
        try:
            with closing(SqlStore(store_url(folder), durable=False)) as store:
                assert numbers(store) == [0, 1, 2]
        except (StorageError, LedgerBroken) as error:
            assert str(error)  # noqa: PT017


class TestSchema:
    @pytest.mark.parametrize(
        ("version", "message"),
        [
            (
                VERSION + 1,
                f"by a later version: expected schema {VERSION}, received schema {VERSION + 1}; upgrade comity, or begin with another state_dir",
            ),
            (
                VERSION - 1,
                f"by an earlier version: expected schema {VERSION}, received schema {VERSION - 1}; export its ledger with the version that wrote",
            ),
        ],
    )
    def test_another_one(self, folder: Path, version: int, message: str) -> None:
        with closing(sqlite3.connect(folder / "comity.db")) as connection, connection:
            connection.execute(f"UPDATE meta SET value = '{version}'")
        whole = (folder / "comity.db").read_bytes()
        for read_only in (False, True):
            with pytest.raises(SchemaMismatch, match=message):
                SqlStore(store_url(folder), read_only=read_only)
        assert (folder / "comity.db").read_bytes() == whole

    def test_the_tables_of_the_first(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "comity.db")) as connection, connection:
            connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            connection.execute("CREATE TABLE ledger (position INTEGER PRIMARY KEY, round INTEGER)")
            connection.execute("INSERT INTO meta VALUES ('schema', '1')")
        for read_only in (False, True):
            with pytest.raises(SchemaMismatch, match="an earlier version"):
                SqlStore(store_url(tmp_path), read_only=read_only)

    @pytest.mark.parametrize(
        "change", ["UPDATE meta SET value = 'x'", "UPDATE meta SET value = x'ff'", "DELETE FROM meta"]
    )
    def test_none(self, folder: Path, change: str) -> None:
        with closing(sqlite3.connect(folder / "comity.db")) as connection, connection:
            connection.execute(change)
        with pytest.raises(StorageCorrupted, match="a schema of version"):
            SqlStore(store_url(folder))


class TestClock:
    NOW = datetime(2026, 5, 1, tzinfo=UTC)

    def test_a_clock_that_stepped_back(self, database: str) -> None:
        store = SqlStore(database, clock=lambda: self.NOW)
        write(store, 0)
        store.close()
        early = self.NOW - CLOCK_SLACK - timedelta(seconds=1)
        with pytest.raises(ClockSteppedBack) as caught:
            SqlStore(database, clock=lambda: early)
        assert caught.value.expected == "2026-05-01T00:00:00.000000+00:00 or later"
        assert caught.value.received == "2026-04-30T23:54:59+00:00"
        assert "set the clock" in caught.value.action
        # Who looks on need not have the right time.
        SqlStore(database, read_only=True, clock=lambda: early).close()

    def test_a_small_step_is_passed_over(self, database: str) -> None:
        store = SqlStore(database, clock=lambda: self.NOW)
        write(store, 0)
        store.close()
        store = SqlStore(database, clock=lambda: self.NOW - CLOCK_SLACK)
        write(store, 1)
        assert len({entry.time for entry in store.entries()}) == 1
        assert numbers(store) == [0, 1]
        store.close()


WRITER = """
import sys
from comity.ledger.ledger import Fact, in_round
from comity.store.sql_store import SqlStore
from comity.store.store import Record, StoredSession

url, stop = sys.argv[1], int(sys.argv[2])
store = SqlStore(url)
writes = 0

def pause():
    global writes
    writes += 1
    if writes == stop:
        print("here", flush=True)
        sys.stdin.read()

for number in range(10**9):
    with store.transaction():
        pause()
        store.record(Fact("intended", "s-1", in_round(number), "hospital", "sent", "loss", f"{number}", 8))
        pause()
        store.save(StoredSession("s-1", {"number": number}, {}))
        pause()
        with store.transaction():
            store.append("s-1", Record("offered", number))
            pause()
            store.record(Fact("delivered", "s-1", in_round(number), "hospital", "sent", "loss", f"{number}", 8))
        pause()
    if not stop:
        print(number, flush=True)
"""


@contextmanager
def writer(url: str, stop: int) -> Iterator[subprocess.Popen[str]]:
    """A process that writes."""
    command = [sys.executable, "-c", WRITER, url, str(stop)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class TestKill:
    @pytest.mark.parametrize("writes", [2, 4, 5])
    def test_in_the_middle_of_a_transaction(self, sqlite_url: str, writes: int) -> None:
        with writer(sqlite_url, 5 + writes) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            process.send_signal(signal.SIGKILL)
        with closing(SqlStore(sqlite_url)) as store:
            assert numbers(store) == [0]
            write(store, 1)
            assert numbers(store) == [0, 1]

    def test_in_the_middle_of_a_transaction_with_a_server(self, postgresql_url: str) -> None:
        with writer(postgresql_url, 9) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            process.send_signal(signal.SIGKILL)
        # The server lets go of the dead one's lock by itself.
        with closing(SqlStore(postgresql_url)) as store:
            assert numbers(store) == [0]
            write(store, 1)
            assert numbers(store) == [0, 1]

    @pytest.mark.parametrize("committed", [7, 40])
    def test_at_any_moment(self, sqlite_url: str, committed: int) -> None:
        with writer(sqlite_url, 0) as process:
            assert process.stdout is not None
            for _ in range(committed):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            told = [json.loads(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        last = max([committed - 1, *told])
        with closing(SqlStore(sqlite_url)) as store:
            # Whatever the process said was committed is there, and at most the one after it.
            assert len(numbers(store)) in {last + 1, last + 2}


def test_every_error_is_one_of_ours_and_names_the_place(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "comity.db")) as connection:
        connection.execute("DROP TABLE journal")
    with closing(SqlStore(store_url(folder))) as store, pytest.raises(ComityError) as caught:
        store.records("s-1")
    assert str(folder / "comity.db") in str(caught.value)
    assert isinstance(caught.value, StorageFailed)
