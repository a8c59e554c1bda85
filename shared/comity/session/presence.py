"""Whether a peer answers, and which rounds go on without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from comity.errors import ComityError, DeadlineExceeded, NodeDraining, PeerUnreachable
from comity.session.events import Event, Observer
from comity.session.waiting import PEER_AWAY, Waits
from comity.store.journal import Journal

Result = TypeVar("Result")

ABSENT = "absent"
"""Kind of the record that a round goes on without a peer; roles pass over it when they replay theirs."""

_AWAY = (PeerUnreachable, DeadlineExceeded, NodeDraining)
"""What a call ends with whose peer is away."""


def _nobody(error: ComityError | None) -> None:
    """Whom to tell of absences where nobody asked."""
    del error


class Presence:
    """Whether one peer answers: what carries the calls to it says so, and roles ask."""

    def __init__(self) -> None:
        self.on_change: Callable[[ComityError | None], None] = _nobody
        """Is told why the peer does not answer, once an absence; and None when it is back."""
        self._error: ComityError | None = None
        self._most_s: float | None = None

    @property
    def is_away(self) -> bool:
        """Whether the last call to the peer had no answer."""
        return self._error is not None

    def lost(self, error: ComityError) -> None:
        """Takes note that the peer does not answer."""
        if self._error is None:
            self._error = error
            self.on_change(error)

    def returned(self) -> None:
        """Takes note that it answers."""
        if self._error is not None:
            self._error = None
            self.on_change(None)

    def wait_s(self, most_s: float) -> float:
        """How long a call waits for the peer, in seconds.

        Args:
            most_s: How long the node's configuration lets it.
        """
        return most_s if self._most_s is None else min(most_s, self._most_s)

    @contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Has calls to the peer wait no longer than that while the body lasts."""
        before, self._most_s = self._most_s, seconds
        try:
            yield
        finally:
            self._most_s = before


class Attendance:
    """Without whom of several peers a round goes on: decided once, kept in the journal, and replayed.

    Args:
        journal: The session's journal.
        waits: What the session waits for: not for a peer without whom it goes on.
        observe: Is told of an absence.
    """

    def __init__(self, journal: Journal, waits: Waits, observe: Observer) -> None:
        self._journal = journal
        self._waits = waits
        self._observe = observe
        self._absent: set[tuple[int, str]] = {
            (record.round, str(record.fields["party"])) for record in journal.records() if record.kind == ABSENT
        }

    def absent(self, round: int) -> frozenset[str]:
        """The peers without whom a round goes on."""
        return frozenset(party for number, party in self._absent if number == round)

    def ask(
        self, round: int, party: str, presence: Presence, call: Callable[[], Result], *, wait_s: float
    ) -> Result | None:
        """Asks a peer for its part in a round, which goes on without it where it does not answer.

        Args:
            round: The round.
            party: The peer.
            presence: Whether it answers.
            call: Asks it; not called again in a round that goes on without it, also not after a restart.
            wait_s: How long to wait for it, in seconds.

        Returns:
            What it answered; None where the round goes on without it.
        """
        if (round, party) in self._absent:
            return None
        try:
            with presence.at_most(wait_s):
                return call()
        except _AWAY as error:
            # From here on the round is one without it: whoever replays it must not find it there.
            self._journal.append(ABSENT, round, party=party, why=str(error))
            self._absent.add((round, party))
            self._waits.end(PEER_AWAY, party)
            self._observe(Event("peer-absent", round, {"peer": party, "why": str(error)}))
            return None
