"""Where a node's blobs are kept, those of each session apart: in memory, or in a folder."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from comity.blobs.blob_files import BlobKeeper, BlobMemory


class BlobStore(Protocol):
    """Keeps the blobs of many sessions; no session sees another's."""

    def keeper(self, session: str, part: str = "") -> BlobKeeper:
        """Where a session's blobs are kept.

        Args:
            session: The session.
            part: What is kept apart within it, for example what one peer sends; empty for the rest.
        """

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
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keeper(self, session: str, part: str = "") -> BlobKeeper:
        """See `BlobStore.keeper`.

        Raises:
            StorageFailed: The folder cannot be made.
        """
        from comity.blobs.blob_files import BlobFolder  # noqa: PLC0415 - as above

        return BlobFolder(self._folder / session / part)

    def sessions(self) -> set[str]:
        """See `BlobStore.sessions`."""
        return {path.name for path in self._folder.glob("*") if path.is_dir()}

    def used(self, session: str | None = None) -> int:
        """See `BlobStore.used`."""
        folder = self._folder if session is None else self._folder / session
        # `walk` passes over folders that are gone, which `rglob` does not.
        return sum(_size(Path(at) / name) for at, _, names in os.walk(folder) for name in names)

    def free(self) -> int:
        """See `BlobStore.free`."""
        there = next(each for each in (self._folder, *self._folder.absolute().parents) if each.exists())
        return shutil.disk_usage(there).free

    def drop(self, session: str) -> int:
        """See `BlobStore.drop`."""
        freed = self.used(session)
        shutil.rmtree(self._folder / session, ignore_errors=True)
        return freed


def _size(path: Path) -> int:
    """Bytes of a file; 0 of one that is gone: another session may have ended meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
