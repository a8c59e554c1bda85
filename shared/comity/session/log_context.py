"""Which round each active session of this process is in, so that every line of the log that is about one can say so."""

from __future__ import annotations

from comity.session.events import Event

_rounds: dict[str, int] = {}


def begin(session: str, round: int) -> None:
    """A session is in a round from now on."""
    _rounds[session] = round


def note(session: str, event: Event, rounds: int) -> None:
    """Takes note of what happened in a session: after a round there is the next, while there is one.

    Args:
        session: The session.
        event: What happened.
        rounds: How many rounds it has in all.
    """
    if event.round:
        _rounds[session] = min(event.round + (event.kind == "round-finished"), rounds)


def end(session: str) -> None:
    """A session is over."""
    _rounds.pop(session, None)


def round_of(session: str) -> int | None:
    """The round that a session is in; None for one that is not active here."""
    return _rounds.get(session)
