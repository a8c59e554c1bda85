"""Where whole blobs are kept: in memory, or as files of which none is ever half there."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import torch

from comity.errors import StorageCorrupted, StorageFailed
from comity.tensors import Blob

SMALL = 2**16
"""Most bytes of a blob for which a file of its own, and the syncs that it needs, would take longer than all else."""


class BlobKeeper(Protocol):
    """Keeps whole blobs under their digests, for any number of threads."""

    def write(self, blob: Blob) -> Blob:
        """Keeps a blob; returns it as it is kept. It is durable before anything that is written later and names it."""

    def read(self, digest: bytes) -> Blob | None:
        """A blob, or None where there is none."""

    def remove(self, digests: Collection[bytes]) -> None:
        """Drops blobs."""

    def digests(self) -> set[bytes]:
        """What is kept."""


class SmallBlobs(Protocol):
    """Where the small blobs of all sessions are kept, see `comity.store.store.SmallBlobs`."""

    def add(self, session: str, part: str, digest: bytes, content: memoryview) -> None:
        """Keeps a blob."""

    def find(self, session: str, part: str, digest: bytes) -> bytes | None:
        """A blob's bytes; None where it is not kept."""

    def digests(self, session: str, part: str) -> set[bytes]:
        """What is kept of a part of a session."""

    def remove(self, session: str, part: str, digests: Collection[bytes]) -> None:
        """Drops blobs."""

    def sessions(self) -> set[str]:
        """The sessions of which blobs are kept."""

    def used(self, session: str) -> int:
        """What those of a session take, in bytes."""

    def drop(self, session: str) -> None:
        """Drops all blobs of a session."""


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

    def remove(self, digests: Collection[bytes]) -> None:
        """See `BlobKeeper.remove`."""
        for digest in digests:
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
        reads_only: Whether another process may be writing there: then nothing is made, and nothing goes.
    """

    def __init__(self, folder: Path, *, reads_only: bool = False) -> None:
        self._folder = folder
        try:
            if not reads_only:
                folder.mkdir(parents=True, exist_ok=True)
                for left in folder.glob("*.part"):
                    left.unlink()
        except OSError as error:
            raise _failed(folder, error) from error
        self._checked: set[bytes] = set()
        self._writing = threading.Lock()

    def write(self, blob: Blob) -> Blob:
        """See `BlobKeeper.write`.

        Raises:
            StorageFailed: The file cannot be written; nothing of it is left.
        """
        path = self._path(blob.digest)
        part = path.with_suffix(".part")
        with self._writing:
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
            raise _changed(str(path), digest, blob)
        self._checked.add(digest)
        return blob

    def remove(self, digests: Collection[bytes]) -> None:
        """See `BlobKeeper.remove`."""
        for digest in digests:
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


class SmallAside:
    """Keeps small blobs where their session is recorded, and others as files.

    Args:
        files: Keeps the others.
        small: Keeps the small ones.
        session: Whose they are.
        part: What is kept apart within the session.
    """

    def __init__(self, files: BlobFolder, small: SmallBlobs, session: str, part: str) -> None:
        self._files, self._small, self._place = files, small, (session, part)
        self._checked: set[bytes] = set()

    def write(self, blob: Blob) -> Blob:
        """See `BlobKeeper.write`.

        Raises:
            StorageError: It cannot be written.
        """
        if blob.size > SMALL:
            return self._files.write(blob)
        self._small.add(*self._place, blob.digest, blob.data)
        self._checked.add(blob.digest)
        # As with a file: what is kept does not change with what it was made from.
        return Blob(blob.digest, memoryview(bytearray(blob.data)))

    def read(self, digest: bytes) -> Blob | None:
        """See `BlobKeeper.read`.

        Raises:
            StorageCorrupted: The bytes are not those that were written.
        """
        content = self._small.find(*self._place, digest)
        if content is None:
            return self._files.read(digest)
        # Torch wants memory that it could write to.
        data = memoryview(bytearray(content))
        if digest not in self._checked:
            blob = Blob.of(data)
            if blob.digest != digest:
                raise _changed(f"a blob of session {self._place[0]}", digest, blob)
            self._checked.add(digest)
        return Blob(digest, data)

    def remove(self, digests: Collection[bytes]) -> None:
        """See `BlobKeeper.remove`."""
        self._checked -= {*digests}
        self._small.remove(*self._place, digests)
        self._files.remove(digests)

    def digests(self) -> set[bytes]:
        """See `BlobKeeper.digests`."""
        return self._small.digests(*self._place) | self._files.digests()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _changed(what: str, digest: bytes, found: Blob) -> StorageCorrupted:
    return StorageCorrupted(
        f"{what} was changed",
        expected=f"BLAKE3 {digest.hex()}",
        received=found.hex,
        action="restore it, or cancel the session",
    )


def _failed(path: Path, error: Exception) -> StorageFailed:
    action = "free space there, or make it writable; the session goes on when the node is started again"
    received = getattr(error, "strerror", None) or error
    return StorageFailed(
        f"{path} cannot be kept", expected="a writable disk with space", received=received, action=action
    )
