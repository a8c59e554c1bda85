"""Blobs on disk: whole or not there, checked when they are read again, and a clear error when the disk will not have them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import torch
from blake3 import blake3

from comity.blobs.blob_files import BlobFolder, BlobKeeper, BlobMemory
from comity.blobs.blob_store import of_node
from comity.errors import StorageCorrupted, StorageFailed
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.tensors import Blob, Layout


@pytest.fixture(params=["memory", "folder", "database"])
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobKeeper]:
    if request.param != "database":
        yield BlobMemory() if request.param == "memory" else BlobFolder(tmp_path / "blobs")
        return
    with closing(SqlStore(store_url(tmp_path))) as store:
        yield of_node(tmp_path, store.small_blobs).keeper("s-1")


def test_what_is_written_can_be_read_and_removed(keeper: BlobKeeper) -> None:
    blob = Blob.of(b"weights" * 1000)
    kept = keeper.write(blob)
    assert (kept.digest, bytes(kept.data)) == (blob.digest, bytes(blob.data))
    assert keeper.digests() == {blob.digest}
    again = keeper.read(blob.digest)
    assert again is not None
    assert bytes(again.data) == bytes(blob.data)
    keeper.remove([blob.digest])
    keeper.remove([blob.digest])
    assert keeper.read(blob.digest) is None
    assert keeper.digests() == set()


def test_blobs_outlive_the_process_that_wrote_them(tmp_path: Path) -> None:
    blob = BlobFolder(tmp_path).write(Blob.of(b"weights"))
    found = BlobFolder(tmp_path).read(blob.digest)
    assert found is not None
    assert bytes(found.data) == b"weights"


def test_what_a_killed_node_left_half_written_is_no_blob(tmp_path: Path) -> None:
    (tmp_path / f"{'00' * 32}.part").write_bytes(b"half")
    folder = BlobFolder(tmp_path)
    assert folder.digests() == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"weight", b"weightS", b"", b"weights and more"])
def test_a_truncated_or_changed_blob_is_named(tmp_path: Path, damage: bytes) -> None:
    blob = BlobFolder(tmp_path).write(Blob.of(b"weights"))
    path = tmp_path / blob.hex
    path.write_bytes(damage)
    with pytest.raises(StorageCorrupted, match=str(path)):
        BlobFolder(tmp_path).read(blob.digest)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = BlobFolder(tmp_path)

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageFailed, match="No space left on device.*free space"):
        folder.write(Blob.of(b"weights"))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    folder.write(Blob.of(b"weights"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="file"):
        BlobFolder(tmp_path / "file" / "blobs")


def test_a_file_that_is_kept_holds_no_descriptor(tmp_path: Path) -> None:
    keeper = BlobFolder(tmp_path / "blobs")
    before = psutil.Process().num_fds()
    kept = [keeper.write(Blob.of(number.to_bytes(8, "big"))) for number in range(200)]
    assert psutil.Process().num_fds() <= before + 2
    assert [bytes(each.data) for each in kept] == [number.to_bytes(8, "big") for number in range(200)]
    # What is read may be written to, as torch wants; the file stays as it is.
    kept[0].data[0] = 1
    assert keeper.read(kept[1].digest) == kept[1]
    assert bytes(BlobFolder(tmp_path / "blobs").read(kept[0].digest).data) == bytes(8)  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_blob_longer_than_2_to_the_31_bytes_is_read_and_verified_without_loading_it(tmp_path: Path) -> None:
    # In bfloat16, with a tensor behind the bound; the file is sparse, and every value 0.
    sizes = {"large": 2**30, "last": 5}
    layout = Layout.of({name: torch.empty(size, dtype=torch.bfloat16, device="meta") for name, size in sizes.items()})
    assert layout.tensors["last"].begin == 2**31
    hasher, left, zeros = blake3(layout.header), layout.size - len(layout.header), bytes(2**24)
    while left:
        left -= len(piece := zeros[:left])
        hasher.update(piece)
    with (tmp_path / hasher.hexdigest()).open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.size)
    before = _own_memory()
    blob = BlobFolder(tmp_path).read(hasher.digest())
    assert blob is not None
    layout.verify(blob)
    last = layout.view(blob.data)["last"]
    assert last.shape == (5,)
    assert not last.any()
    # Mapped, not loaded.
    assert _own_memory() - before < 2**29


def _own_memory() -> int:
    """Bytes of memory that are this process's alone, without what it maps of files."""
    info = psutil.Process().memory_info()
    return int(info.rss - info.shared)
