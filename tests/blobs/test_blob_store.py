"""One suite for every place where a node's blobs can be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from comity.blobs.blob_store import BlobFolders, BlobMemories, BlobStore
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.tensors import Blob

BLOB, OTHER = Blob.of(b"weights"), Blob.of(b"other weights")


@pytest.fixture(params=["memory", "folders", "small ones aside"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param != "small ones aside":
        yield BlobMemories() if request.param == "memory" else BlobFolders(tmp_path / "blobs")
        return
    with closing(SqlStore(store_url(tmp_path))) as kept:
        yield BlobFolders(tmp_path / "blobs", small=kept.small_blobs)


def test_begins_empty(store: BlobStore) -> None:
    assert store.sessions() == set()
    assert store.used() == store.used("s-1") == store.drop("s-1") == 0
    assert store.free() > 0


def test_a_session_finds_its_blobs_again(store: BlobStore) -> None:
    store.keeper("s-1").write(BLOB)
    found = store.keeper("s-1").read(BLOB.digest)
    assert found is not None
    assert bytes(found.data) == b"weights"


def test_sessions_and_their_parts_are_apart(store: BlobStore) -> None:
    store.keeper("s-1").write(BLOB)
    store.keeper("s-1", "from-clinic").write(OTHER)
    assert store.keeper("s-1").digests() == {BLOB.digest}
    assert store.keeper("s-1", "from-clinic").digests() == {OTHER.digest}
    assert store.keeper("s-2").digests() == set()
    assert {"s-1", "s-2"} >= store.sessions() >= {"s-1"}
    assert (store.used("s-1"), store.used("s-2")) == (20, 0)


def test_a_session_is_dropped_whole(store: BlobStore) -> None:
    for session in ("s-1", "s-2"):
        store.keeper(session).write(BLOB)
        store.keeper(session, "from-clinic").write(OTHER)
    assert store.drop("s-1") == 20
    assert store.keeper("s-1").digests() == store.keeper("s-1", "from-clinic").digests() == set()
    assert store.keeper("s-2").digests() == {BLOB.digest}
    assert (store.used("s-1"), store.used("s-2")) == (0, 20)


def test_all_sessions_are_counted_together(tmp_path: Path) -> None:
    for store in (BlobMemories(), BlobFolders(tmp_path / "blobs")):
        for session in ("s-1", "s-2"):
            store.keeper(session).write(BLOB)
        assert store.used() == 14


def test_what_is_kept_in_a_database_counts_there(tmp_path: Path) -> None:
    with closing(SqlStore(store_url(tmp_path))) as kept:
        blobs, before = BlobFolders(tmp_path / "blobs", small=kept.small_blobs), kept.size()
        for number in range(10):
            blobs.keeper("s-1").write(Blob.of(number.to_bytes(1, "big") * 60_000))
        assert blobs.used("s-1") == 600_000
        assert blobs.used() == 0
        assert kept.size() - before >= 600_000
        blobs.drop("s-1")
        assert kept.size() - before < 100_000


def test_folders_outlive_the_process(tmp_path: Path) -> None:
    BlobFolders(tmp_path).keeper("s-1").write(BLOB)
    assert BlobFolders(tmp_path).sessions() == {"s-1"}
    assert BlobFolders(tmp_path).keeper("s-1").digests() == {BLOB.digest}


@pytest.mark.parametrize("look", [1, 2])
def test_what_a_session_keeps_is_counted_while_another_ends(
    look: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends between two looks at its file."""
    blobs = BlobFolders(tmp_path)
    kept = blobs.keeper("stays").write(BLOB).size
    blobs.keeper("goes").write(OTHER)
    honest, looks = Path.stat, list[Path]()

    def stat(path: Path, **options: Any) -> os.stat_result:
        if path.parent.name == "goes":
            looks.append(path)
            if len(looks) == look:
                shutil.rmtree(path.parent)
        return honest(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert kept <= blobs.used() <= kept + OTHER.size
