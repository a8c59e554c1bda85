"""The leases of the sessions that a process works on."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from comity.errors import StateInUse, StorageError
from comity.store.store import Store

DURATION = timedelta(minutes=1)
"""How long a lease holds without being renewed: how long a session stands still when its machine dies."""

_RENEWALS = 3
"""How often a lease is renewed before it would run out."""


class Leases:
    """Takes the leases of sessions, and renews them until they are let go of.

    Args:
        store: Where they are kept.
        owner: Who works on the sessions; see `owner_in`.
        duration: How long a lease holds without being renewed.
    """

    def __init__(self, store: Store, owner: str, duration: timedelta = DURATION) -> None:
        self._store = store
        self._owner = owner
        self._duration = duration
        self._lost: dict[str, Callable[[], object]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def hold(self, session: str, lost: Callable[[], object]) -> None:
        """Takes a session's lease; from here on this process works on it.

        Args:
            session: The session.
            lost: Called, from a thread of its own, where another has taken the session over: this process was not heard
                of for too long. It is to stop working on it, and to leave it as it is.

        Raises:
            StateInUse: Another works on it.
            StorageError: The lease cannot be kept.
        """
        lease = self._store.take_lease(session, self._owner, self._duration)
        if lease.owner != self._owner:
            raise StateInUse(
                f"another process works on session {session}",
                expected="no other process",
                received=f"{lease.owner}, until {lease.until[:19]} UTC unless it goes on",
                action="stop that process, or wait until its lease has run out",
            )
        with self._changed:
            self._lost[session] = lost
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._renew, name="leases", daemon=True)
                self._thread.start()

    def drop(self, session: str) -> None:
        """Lets go of a session's lease; nothing where it is not held."""
        with self._changed:
            held = self._lost.pop(session, None) is not None
        if held:
            self._store.drop_lease(session, self._owner)

    def close(self) -> None:
        """Lets go of all leases: another process may go on at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        for session in list(self._lost):
            self.drop(session)

    def _renew(self) -> None:
        while not self._wait():
            for session in list(self._lost):
                self._renew_one(session)

    def _wait(self) -> bool:
        """Waits until leases are to be renewed; returns whether there is no more to do."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, self._duration.total_seconds() / _RENEWALS)

    def _renew_one(self, session: str) -> None:
        try:
            # Not under the condition: whoever lets go of a lease may have the store to itself meanwhile.
            lease = self._store.take_lease(session, self._owner, self._duration)
        except StorageError:
            # What cannot be renewed now may be the next time; the session itself notices that the store fails.
            return
        is_ours = lease.owner == self._owner
        with self._changed:
            lost = self._lost.get(session) if is_ours else self._lost.pop(session, None)
        if lost is None and is_ours:
            # It was let go of meanwhile.
            self._store.drop_lease(session, self._owner)
        elif lost is not None and not is_ours:
            lost()


def owner_in(folder: Path) -> str:
    """Who works in a `state_dir`, as leases name it: made at first use, and the same after a restart.

    Where several processes work in one folder, each adds what tells it from the others.
    """
    path = folder / "instance"
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_text(secrets.token_hex(8), encoding="ascii")
        part.replace(path)
    return path.read_text(encoding="ascii")
