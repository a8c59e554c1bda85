"""Asking several peers at once, and going on without those that are away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TypeVar

from comity.errors import ComityError, DeadlineExceeded, NodeDraining, PeerUnreachable
from comity.ledger.ledger import Units
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.waiting import PEER_AWAY

Result = TypeVar("Result")

Question = tuple[PeerContext, Callable[[], Future[Result]]]
"""A peer, and what asks it: a call that may take its time, which returns at once."""

_AWAY = (PeerUnreachable, DeadlineExceeded, NodeDraining)
"""What a call ends with whose peer is away."""


def ask_those_present(
    units: Units,
    questions: Sequence[Question[Result]],
    *,
    wait_s: float,
    meanwhile: Callable[[], object] | None = None,
) -> dict[str, Result]:
    """Asks peers at once for their part in some units, which go on without those that do not answer.

    Without whom they go on is decided once: this party signs that it withdraws the units, which are then not charged, and
    that stands in the ledger. A peer is not asked again for what was withdrawn, also not after a restart; it is told when it
    is asked for the next: see `ReceiptBook.untold`.

    Args:
        units: What they are asked for.
        questions: The peers, and what asks them.
        wait_s: How long to try to reach a peer that is away, in seconds.
        meanwhile: This party's own part, done while they are at theirs.

    Returns:
        What each answered, by its name, in the order of the questions; those that were away are left out.

    Raises:
        ComityError: What a peer answered that is not away.
    """
    asked = [(context, ask) for context, ask in questions if not context.receipt_book.is_withdrawn(units)]
    with ExitStack() as stack:
        for context, _ in asked:
            stack.enter_context(context.presence.at_most(wait_s))
        answers = [(context, _asked(ask)) for context, ask in asked]
        if meanwhile is not None:
            meanwhile()
        found: dict[str, Result] = {}
        for context, answer in answers:
            try:
                found[context.peer.party] = answer.result()
            except _AWAY as error:
                _go_on_without(context, units, error)
    return found


def _asked(ask: Callable[[], Future[Result]]) -> Future[Result]:
    """What a peer will answer; also where it turns out to be away while it is asked."""
    try:
        return ask()
    except _AWAY as error:
        answer: Future[Result] = Future()
        answer.set_exception(error)
        return answer


def _go_on_without(context: PeerContext, units: Units, error: ComityError) -> None:
    party = context.peer.party
    context.receipt_book.withdraw(units)
    context.waits.end(PEER_AWAY, party)
    number = units.first if units.unit == "round" else 0
    context.observe(Event("peer-absent", number, {"peer": party, "units": str(units), "why": str(error)}))
