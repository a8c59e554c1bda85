"""Freeing what sessions that have ended left behind."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from comity.blobs.blob_store import BlobStore
from comity.errors import InvalidValue, StateInUse
from comity.store.store import Store


@contextlib.contextmanager
def occupied(state_dir: Path) -> Iterator[None]:
    """Makes a state directory where there is none, and holds its lock.

    Raises:
        InvalidValue: It cannot be used.
        StateInUse: Another process works in it.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (state_dir / "blobs").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise InvalidValue(
            f"state_dir {state_dir} cannot be used",
            expected="a writable folder",
            received=error.strerror or error,
            action="make it writable, or configure another state_dir",
        ) from error
    with exclusive(state_dir):
        yield


@contextlib.contextmanager
def exclusive(state_dir: Path) -> Iterator[None]:
    """Holds the lock of a state directory; the system lets go of it when the process ends, however it ends.

    Raises:
        StateInUse: A node works in it.
    """
    with (state_dir / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateInUse(
                "another node works in this state_dir",
                expected="a folder of its own",
                received=state_dir,
                action="stop it, or use another state_dir",
            ) from error
        yield


def collect(blobs: BlobStore, store: Store) -> int:
    """Drops blobs and journals of sessions that are not on; ledger and results stay.

    Returns:
        Bytes that were freed.
    """
    active = {each.session for each in store.sessions() if each.is_on}
    freed = 0
    for session in sorted(blobs.sessions() - active):
        freed += blobs.drop(session)
        store.forget(session)
    return freed
