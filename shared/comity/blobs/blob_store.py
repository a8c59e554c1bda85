"""Where a node's blobs are kept, those of each session apart: in memory, or in a folder."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from comity.blobs.blob_files import BlobFolder, BlobKeeper, BlobMemory, SmallBlobs
    from comity.tensors import Blob


class BlobStore(Protocol):
    """Keeps the blobs of many sessions; no session sees another's."""

    def keeper(self, session: str, part: str = "") -> BlobKeeper:
        """Where a session's blobs are kept.

        Args:
            session: The session.
            part: What is kept apart within it, for example what one peer sends; empty for the rest.
        """

    def find(self, session: str, digest: bytes, part: str = "") -> Blob | None:
        """A blob of a session, without making anything; None where it is not here."""

    def sessions(self) -> set[str]:
        """The sessions of which blobs are kept."""

    def used(self, session: str | None = None) -> int:
        """What a session's blobs take, or those of all, in bytes."""

    def free(self) -> int:
        """What may still be kept, in bytes."""

    def drop(self, session: str) -> int:
        """Drops all blobs of a session; returns how many bytes they took."""


class BlobMemories:
    """A `BlobStore` that ends with its process."""

    def __init__(self) -> None:
        self._keepers: dict[tuple[str, str], BlobMemory] = {}

    def keeper(self, session: str, part: str = "") -> BlobKeeper:
        """See `BlobStore.keeper`."""
        from comity.blobs.blob_files import BlobMemory  # noqa: PLC0415 - who only counts bytes needs no torch

        return self._keepers.setdefault((session, part), BlobMemory())

    def find(self, session: str, digest: bytes, part: str = "") -> Blob | None:
        """See `BlobStore.find`."""
        keeper = self._keepers.get((session, part))
        return None if keeper is None else keeper.read(digest)

    def sessions(self) -> set[str]:
        """See `BlobStore.sessions`."""
        return {session for session, _ in self._keepers}

    def used(self, session: str | None = None) -> int:
        """See `BlobStore.used`."""
        return sum(keeper.size for (name, _), keeper in self._keepers.items() if session in {None, name})

    def free(self) -> int:
        """See `BlobStore.free`; memory is nobody's quota."""
        return sys.maxsize

    def drop(self, session: str) -> int:
        """See `BlobStore.drop`."""
        freed = self.used(session)
        for name in [name for name in self._keepers if name[0] == session]:
            del self._keepers[name]
        return freed


class BlobFolders:
    """A `BlobStore` in a folder, with a folder for each session.

    Args:
        folder: The folder; it need not be there yet.
        beside: Another one, what is in which counts among what all sessions take.
        small: Where small blobs are kept, in a database whose size counts elsewhere; None for files as well.
    """

    def __init__(self, folder: Path, beside: Path | None = None, small: SmallBlobs | None = None) -> None:
        self._folder = folder
        self._beside = beside
        self._small = small

    def keeper(self, session: str, part: str = "") -> BlobKeeper:
        """See `BlobStore.keeper`.

        Raises:
            StorageFailed: The folder cannot be made.
        """
        from comity.blobs.blob_files import BlobFolder  # noqa: PLC0415 - as above

        return self._whole(BlobFolder(self._folder / session / part), session, part)

    def find(self, session: str, digest: bytes, part: str = "") -> Blob | None:
        """See `BlobStore.find`; makes and clears nothing, also beside a node that works."""
        from comity.blobs.blob_files import BlobFolder  # noqa: PLC0415 - as above

        files = BlobFolder(self._folder / session / part, reads_only=True)
        return self._whole(files, session, part).read(digest)

    def _whole(self, files: BlobFolder, session: str, part: str) -> BlobKeeper:
        from comity.blobs.blob_files import SmallAside  # noqa: PLC0415 - as above

        return files if self._small is None else SmallAside(files, self._small, session, part)

    def sessions(self) -> set[str]:
        """See `BlobStore.sessions`."""
        small = set[str]() if self._small is None else self._small.sessions()
        return {path.name for path in self._folder.glob("*") if path.is_dir()} | small

    def used(self, session: str | None = None) -> int:
        """See `BlobStore.used`; of all sessions, without what their database takes."""
        if session is not None:
            small = 0 if self._small is None else self._small.used(session)
            return _bytes_in(self._folder / session) + small
        return _bytes_in(self._folder) + (0 if self._beside is None else _bytes_in(self._beside))

    def free(self) -> int:
        """See `BlobStore.free`."""
        there = next(each for each in (self._folder, *self._folder.absolute().parents) if each.exists())
        return shutil.disk_usage(there).free

    def drop(self, session: str) -> int:
        """See `BlobStore.drop`."""
        freed = self.used(session)
        shutil.rmtree(self._folder / session, ignore_errors=True)
        if self._small is not None:
            self._small.drop(session)
        return freed


def of_node(state_dir: Path, small: SmallBlobs | None = None) -> BlobFolders:
    """A node's blobs; the copies that it keeps for audits count with them.

    Args:
        state_dir: Where the node keeps what it keeps.
        small: See `BlobFolders`; None where those do not matter.
    """
    return BlobFolders(state_dir / "blobs", copies_of(state_dir), small)


def copies_of(state_dir: Path) -> Path:
    """Where a node keeps copies of what it sent."""
    return state_dir / "audit"


def _bytes_in(folder: Path) -> int:
    # `walk` passes over folders that are gone, which `rglob` does not.
    return sum(_size(Path(at) / name) for at, _, names in os.walk(folder) for name in names)


def _size(path: Path) -> int:
    """Bytes of a file; 0 of one that is gone: another session may have ended meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
