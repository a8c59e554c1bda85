"""Where whole blobs are kept: in memory, or as files of which none is ever half there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol

import torch

from comity.errors import StorageCorrupted, StorageFailed
from comity.tensors import Blob


class BlobKeeper(Protocol):
    """Keeps whole blobs under their digests."""

    def write(self, blob: Blob) -> Blob:
        """Keeps a blob, durably; returns it as it is kept."""

    def read(self, digest: bytes) -> Blob | None:
        """A blob, or None where there is none."""

    def remove(self, digest: bytes) -> None:
        """Drops a blob."""

    def digests(self) -> set[bytes]:
        """What is kept."""


class BlobMemory:
    """Keeps blobs as long as the process lives."""

    def __init__(self) -> None:
        self._blobs: dict[bytes, Blob] = {}

    @property
    def size(self) -> int:
        """What is kept, in bytes."""
        return sum(blob.size for blob in self._blobs.values())

    def write(self, blob: Blob) -> Blob:
        """See `BlobKeeper.write`."""
        self._blobs[blob.digest] = blob
        return blob

    def read(self, digest: bytes) -> Blob | None:
        """See `BlobKeeper.read`."""
        return self._blobs.get(digest)

    def remove(self, digest: bytes) -> None:
        """See `BlobKeeper.remove`."""
        self._blobs.pop(digest, None)

    def digests(self) -> set[bytes]:
        """See `BlobKeeper.digests`."""
        return set(self._blobs)


class BlobFolder:
    """Keeps blobs as files named by their digests: written beside, synced, renamed.

    What is read is mapped, not loaded, and has its digest checked the first time. A file that is kept holds no descriptor,
    and no mapping when nobody has its blob: there may be more of them than a process may have of either.

    Args:
        folder: The folder; made if it is not there. Files in it that are no blobs are what a killed node left, and go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob("*.part"):
                left.unlink()
        except OSError as error:
            raise _failed(folder, error) from error
        self._checked: set[bytes] = set()

    def write(self, blob: Blob) -> Blob:
        """See `BlobKeeper.write`.

        Raises:
            StorageFailed: The file cannot be written; nothing of it is left.
        """
        path = self._path(blob.digest)
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                file.write(blob.data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            _sync_folder(self._folder)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise _failed(path, error) from error
        self._checked.add(blob.digest)
        return Blob(blob.digest, self._map(path))

    def read(self, digest: bytes) -> Blob | None:
        """See `BlobKeeper.read`.

        Raises:
            StorageCorrupted: The file's bytes are not those that were written.
        """
        path = self._path(digest)
        if not path.exists():
            return None
        if digest in self._checked:
            return Blob(digest, self._map(path))
        blob = Blob.of(self._map(path))
        if blob.digest != digest:
            action = "restore the file, or cancel the session"
            raise StorageCorrupted(
                f"{path} was changed", expected=f"BLAKE3 {digest.hex()}", received=blob.hex, action=action
            )
        self._checked.add(digest)
        return blob

    def remove(self, digest: bytes) -> None:
        """See `BlobKeeper.remove`."""
        self._checked.discard(digest)
        try:
            self._path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise _failed(self._path(digest), error) from error

    def digests(self) -> set[bytes]:
        """See `BlobKeeper.digests`."""
        return {
            bytes.fromhex(path.name) for path in self._folder.iterdir() if path.is_file() and path.suffix != ".part"
        }

    def clear(self) -> None:
        """Removes the folder with all that is in it."""
        self._checked.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, digest: bytes) -> Path:
        return self._folder / digest.hex()

    @staticmethod
    def _map(path: Path) -> memoryview:
        try:
            size = path.stat().st_size
            if not size:
                return memoryview(bytearray())
            # A private mapping: torch wants memory that it could write to, and the file stays as it is. Python's own mmap
            # keeps the file open.
            return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy().data
        except (OSError, RuntimeError) as error:
            raise _failed(path, error) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: Path, error: Exception) -> StorageFailed:
    action = "free space there, or make it writable; the session goes on when the node is started again"
    received = getattr(error, "strerror", None) or error
    return StorageFailed(
        f"{path} cannot be kept", expected="a writable disk with space", received=received, action=action
    )
