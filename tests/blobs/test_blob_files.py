"""Blobs on disk: whole or not there, checked when they are read again, and a clear error when the disk will not have them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import psutil
import pytest

from comity.blobs.blob_files import BlobFolder, BlobKeeper, BlobMemory
from comity.errors import StorageCorrupted, StorageFailed
from comity.tensors import Blob


@pytest.fixture(params=["memory", "folder"])
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> BlobKeeper:
    return BlobMemory() if request.param == "memory" else BlobFolder(tmp_path / "blobs")


def test_what_is_written_can_be_read_and_removed(keeper: BlobKeeper) -> None:
    blob = Blob.of(b"weights" * 1000)
    kept = keeper.write(blob)
    assert (kept.digest, bytes(kept.data)) == (blob.digest, bytes(blob.data))
    assert keeper.digests() == {blob.digest}
    again = keeper.read(blob.digest)
    assert again is not None
    assert bytes(again.data) == bytes(blob.data)
    keeper.remove(blob.digest)
    keeper.remove(blob.digest)
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
