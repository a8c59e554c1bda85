"""Freeing what sessions that have ended left behind."""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from comity.blobs.blob_store import BlobStore
from comity.errors import InvalidValue, StateInUse
from comity.store.store import Store

_RUNNING = "running"
_CRASHED = "crashed.txt"

_LOOKED_AT_S = 0.5
"""Longest that somebody may take who only looks whether a state directory is in use, in seconds."""


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
        # Also of a folder that is all there already: its volume may have become read-only.
        (state_dir / "lock").touch(mode=0o600)
    except OSError as error:
        raise InvalidValue(
            f"state_dir {state_dir} cannot be used",
            expected="a writable folder",
            received=error.strerror or error,
            action="make it writable, or configure another state_dir",
        ) from error
    with exclusive(state_dir):
        yield


def was_killed(state_dir: Path) -> bool:
    """Whether a node works here, or the last did not come to its end: what it leaves at its start it takes away then."""
    return (state_dir / _RUNNING).exists()


def crash_of_the_last(state_dir: Path) -> Path | None:
    """Where it stands what each thread was at when a library crashed the last node here; None where none did."""
    mark = state_dir / _RUNNING
    if not mark.exists() or not mark.stat().st_size:
        return None
    return mark.replace(state_dir / _CRASHED)


@contextlib.contextmanager
def marked_running(state_dir: Path) -> Iterator[None]:
    """Has a state directory say, until the block is left, that a node is at work: see `was_killed`, `crash_of_the_last`."""
    mark = state_dir / _RUNNING
    mark.touch(mode=0o600)
    with mark.open("w") as file:
        # Into a file, which keeps a process that crashes waiting for no reader.
        is_ours = not faulthandler.is_enabled()
        if is_ours:
            faulthandler.enable(file)
        try:
            yield
        finally:
            if is_ours:
                faulthandler.disable()
            mark.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(state_dir: Path) -> Iterator[None]:
    """Holds the lock of a state directory; the system lets go of it when the process ends, however it ends.

    Raises:
        StateInUse: A node works in it.
    """
    with (state_dir / "lock").open("a") as lock:
        end = time.monotonic() + _LOOKED_AT_S
        while not _lock(lock, fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise StateInUse(
                    "another node works in this state_dir",
                    expected="a folder of its own",
                    received=state_dir,
                    action="stop it, or use another state_dir",
                )
            # It may be somebody who only looks; see `is_occupied`.
            time.sleep(_LOOKED_AT_S / 10)
        yield


def is_occupied(state_dir: Path) -> bool:
    """Whether a process holds the lock of a state directory; several may ask at once."""
    try:
        with (state_dir / "lock").open("r") as lock:
            return not _lock(lock, fcntl.LOCK_SH)
    except OSError:
        # Where there is no such folder, or no lock in it, nobody works.
        return False


def _lock(file: TextIO, kind: int) -> bool:
    """Takes a lock on a file, until it is closed; returns whether it could be had."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def collect(blobs: BlobStore, copies: BlobStore, store: Store) -> int:
    """Drops blobs and journals of sessions that are not on, and copies of what they sent; ledger and results stay.

    Args:
        blobs: The node's blobs.
        copies: Its copies of what it sent.
        store: Where it records its sessions.

    Returns:
        Bytes that were freed.
    """
    active = {each.session for each in store.ongoing()}
    freed = 0
    for session in sorted((blobs.sessions() | copies.sessions()) - active):
        freed += blobs.drop(session) + copies.drop(session)
        store.forget(session)
    return freed
