"""What a session may wait for: reasons are declared, and what is waited for is kept with the session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from comity.contract import Json
from comity.session.events import Event, Observer, nobody
from comity.store.memory_store import MemoryStore
from comity.store.store import Store, Waiting


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a session may wait. A protocol declares its own beside those below.

    Attributes:
        name: Its name, for example `approval`.
        waits_for: What is waited for; `{subject}` and `{session}` stand for what they say.
        ends_with: What ends the wait, likewise.
        counts: Whether a session that waits counts against `policy.max_sessions`.
        expires: Whether `policy.max_wait_s` bounds the wait; what waits longer is ended.
    """

    name: str
    waits_for: str
    ends_with: str
    counts: bool = True
    expires: bool = True

    def of(self, session: str, subject: str = "") -> Waiting:
        """This reason in one session."""
        waits_for, ends_with = (
            text.format(subject=subject, session=session) for text in (self.waits_for, self.ends_with)
        )
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return Waiting(self.name, subject, waits_for, ends_with, self.counts, self.expires, since)


OFFLINE = Reason(
    "offline",
    "a bundle from {subject}",
    "comity offline import takes it, and comity offline export goes on",
    expires=False,
)
"""Rounds that are exchanged without a network."""

APPROVAL = Reason(
    "approval",
    "this node's operator to approve what {subject} proposes",
    "comity sessions accept {session}, or comity sessions refuse {session}",
)
"""A proposal, at the party that was asked."""

APPROVAL_ELSEWHERE = Reason(
    "approval-elsewhere",
    "the operator of {subject} to approve the proposal",
    "they decide with comity sessions accept or refuse at their node",
    expires=False,
)
"""The same at the party that asks."""

PEER_AWAY = Reason(
    "peer-away",
    "{subject}, which does not answer",
    "it answers again",
    expires=False,
)
"""A peer that was there before; how long a node tries, its configuration says."""


def unkept() -> Waits:
    """What a session waits for that nobody keeps or looks on at."""
    return Waits(MemoryStore(), "")


class Waits:
    """What one session waits for, kept with the session and told to those who look on.

    Args:
        store: Where the session is kept; one that is not kept there, as in a simulation, waits all the same.
        session: Its identifier.
        observe: Is told when a wait begins and ends.
    """

    def __init__(self, store: Store, session: str, observe: Observer = nobody) -> None:
        self._store = store
        self._session = session
        self._observe = observe

    def begin(self, reason: Reason, subject: str = "", **details: Json) -> None:
        """Has the session wait, from now on and after a restart; it may wait for several things at a time.

        Args:
            reason: Why.
            subject: What tells several waits of one reason apart.
            details: What else there is to tell of it.
        """
        waiting = reason.of(self._session, subject)
        self._replace(waiting, waiting)
        told: dict[str, Json] = asdict(waiting)
        self._observe(Event("waiting", 0, {**told, **details}))

    def end(self, reason: Reason, subject: str = "") -> None:
        """Has the session go on, where it waits for nothing else."""
        self._replace(reason.of(self._session, subject), None)
        self._observe(Event("waiting-over", 0, {"reason": reason.name, "subject": subject}))

    @contextmanager
    def until(self, reason: Reason, subject: str = "", **details: Json) -> Iterator[None]:
        """Waits while the body lasts; a node that stops meanwhile still waits when it is back."""
        self.begin(reason, subject, **details)
        yield
        self.end(reason, subject)

    def _replace(self, old: Waiting, new: Waiting | None) -> None:
        with self._store.transaction():
            kept = self._store.find(self._session)
            if kept is None or not kept.is_on:
                return
            same = (old.reason, old.subject)
            others = tuple(each for each in kept.waits if (each.reason, each.subject) != same)
            known = [each for each in kept.waits if (each.reason, each.subject) == same]
            waits = others if new is None else kept.waits if known else (*others, new)
            if waits != kept.waits:
                self._store.save(replace(kept, waits=waits, state="waiting" if waits else "active"))
