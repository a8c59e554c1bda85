"""What a session may wait for: reasons are declared, and what is waited for is kept with the session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from comity.contract import Json
from comity.errors import ComityError, InvalidValue
from comity.session.events import Event, Observer, ignore
from comity.store.store import Store, StoredSession, Waiting


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a session may wait. A protocol declares its own beside those below.

    Attributes:
        name: Its name, for example `approval`.
        waits_for: What is waited for; `{subject}` and `{session}` stand for what they say.
        ends_with: What ends the wait, likewise.
        counts: Whether a session that waits counts against `policy.max_sessions`.
        expires: Whether `policy.max_wait_s` bounds the wait; what waits longer is ended.
        concludes: Whether the session has done its work and waits for its operator's word to end: `comity cancel` then ends it
            well, with what it came to.
    """

    name: str
    waits_for: str
    ends_with: str
    counts: bool = True
    expires: bool = True
    concludes: bool = False

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
    counts=False,
)
"""A proposal, at the party that was asked. It counts among those of the party that proposes it, and takes no other's place."""

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
    "goes on when it answers",
    expires=False,
)
"""A peer that was there before; how long a node tries, its configuration says."""


OTHERS = Reason(
    "others",
    "{subject} to open the first round, once enough parties have joined",
    "goes on by itself then",
)
"""One of many that have joined a session, before its first round."""

DATA = Reason(
    "data",
    "this node's data, which are others than those that the session was agreed on",
    "goes on when they are back; comity cancel {session} ends it",
)
"""Data that changed since a session began."""


def began(waiting: Waiting, **details: Json) -> Event:
    """The event that tells that a session waits, with what else there is to tell of it."""
    told: dict[str, Json] = asdict(waiting)
    return Event("waiting", 0, {**told, **details})


def overdue(session: StoredSession, most_s: float | None, now: datetime) -> Waiting | None:
    """What a session has waited for longer than it may, if anything.

    Args:
        session: The session.
        most_s: How long it may wait where its reason is bounded, in seconds; None for ever.
        now: What time it is.
    """
    for each in session.waits if most_s is not None else ():
        if each.expires and (now - datetime.fromisoformat(each.since)).total_seconds() > (most_s or 0.0):
            return each
    return None


class Waits:
    """What one session waits for, kept with the session and told to observers.

    Args:
        store: Where the session is kept; one that is not kept there, as in a simulation, waits all the same.
        session: Its identifier.
        observe: Is told when a wait begins and ends.

    Attributes:
        concluded: Set when the operator's word has come that a wait that `concludes` is over.
    """

    def __init__(self, store: Store, session: str, observe: Observer = ignore) -> None:
        self._store = store
        self._session = session
        self._observe = observe
        self._begun: set[tuple[str, str]] = set()
        self._concluding: set[tuple[str, str]] = set()
        self.concluded = threading.Event()
        self._lock = threading.Lock()
        self._awaited: set[threading.Event] = set()
        self._given_up: ComityError | None = None

    def begin(self, reason: Reason, subject: str = "", **details: Json) -> None:
        """Has the session wait, from now on and after a restart; it may wait for several things at a time.

        Args:
            reason: Why.
            subject: What tells several waits of one reason apart.
            details: What else there is to tell of it.
        """
        waiting = reason.of(self._session, subject)
        self._begun.add((reason.name, subject))
        if reason.concludes:
            with self._lock:
                self._concluding.add((reason.name, subject))
        self._change(lambda waits: waits if _at(waits, reason, subject) else (*waits, waiting))
        self._observe(began(waiting, **details))

    def end(self, reason: Reason, subject: str = "") -> None:
        """Has the session go on, where it waits for nothing else; nothing happens where it does not wait for this."""
        kept = self._store.find(self._session)
        waited = (reason.name, subject) in self._begun or (kept is not None and _at(kept.waits, reason, subject))
        self._begun.discard((reason.name, subject))
        with self._lock:
            self._concluding.discard((reason.name, subject))
        if waited:
            self._change(lambda waits: tuple(each for each in waits if not _at([each], reason, subject)))
            self._observe(Event("waiting-over", 0, {"reason": reason.name, "subject": subject}))

    def clear(self, *reasons: Reason) -> None:
        """Forgets what was waited for, where the session is not active any more, or does so anew.

        Args:
            reasons: Which waits; all of them if nothing is said.
        """
        names = {each.name for each in reasons}
        self._begun.clear()
        self._change(lambda waits: tuple(each for each in waits if names and each.reason not in names))

    @contextmanager
    def until(self, reason: Reason, subject: str = "", **details: Json) -> Iterator[None]:
        """Waits while the body lasts; a node that stops meanwhile still waits when it is back."""
        self.begin(reason, subject, **details)
        yield
        self.end(reason, subject)

    def wait(
        self,
        reason: Reason,
        ready: threading.Event,
        subject: str = "",
        *,
        every_s: float | None = None,
        meanwhile: Callable[[], object] | None = None,
        **details: Json,
    ) -> None:
        """Has the session and its worker wait until something is there.

        Args:
            reason: Why.
            ready: Is set when it is there.
            subject: See `begin`.
            every_s: After how long `meanwhile` is called, again and again, in seconds; None for never.
            meanwhile: What is done while the session waits, for example to tell a peer that this party is still there.
            details: See `begin`.

        Raises:
            ComityError: Why the session is not active any more, or what was done meanwhile raised.
        """
        with self._lock:
            self._awaited.add(ready)
        try:
            with self.until(reason, subject, **details):
                while self._given_up is None and not ready.wait(every_s):
                    if meanwhile is not None:
                        meanwhile()
                if self._given_up is not None:
                    raise self._given_up
        finally:
            with self._lock:
                self._awaited.discard(ready)

    def require_operator(self, what: str) -> None:
        """For whoever needs the node's operator.

        Args:
            what: What for.

        Raises:
            InvalidValue: The session is kept nowhere, as in a simulation: nobody could do anything about it.
        """
        if self._store.find(self._session) is None:
            raise InvalidValue(
                f"{what} needs an operator",
                expected="a session between nodes",
                received="a simulation",
                action="run the session at nodes, with comity open and comity join, or comity run",
            )

    def require_going_on(self) -> None:
        """For whoever waits in turns of its own.

        Raises:
            ComityError: Why the session is not active any more.
        """
        if self._given_up is not None:
            raise self._given_up

    def conclude(self) -> bool:
        """Has a session end well that waits for its operator's word to do so; returns whether it waits for that."""
        with self._lock:
            if self._concluding:
                self.concluded.set()
            return bool(self._concluding)

    def give_up(self, error: ComityError) -> None:
        """Ends every wait, present and future, of the session's worker; that it waits stays kept."""
        with self._lock:
            self._given_up = error
            for ready in self._awaited:
                ready.set()

    def _change(self, change: Callable[[tuple[Waiting, ...]], tuple[Waiting, ...]]) -> None:
        with self._store.transaction():
            kept = self._store.find(self._session)
            if kept is None or not kept.is_on:
                return
            waits = change(kept.waits)
            if waits != kept.waits:
                self._store.save(replace(kept, waits=waits, state="waiting" if waits else "active"))


def _at(waits: Iterable[Waiting], reason: Reason, subject: str) -> bool:
    return any((each.reason, each.subject) == (reason.name, subject) for each in waits)
