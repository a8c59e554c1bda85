"""One session in which a node asks, while it is on."""

from __future__ import annotations

import threading

import structlog

from comity import interruption
from comity.contract import Contract
from comity.errors import ComityError, NodeDraining
from comity.node.logs import log_event
from comity.node.sessions.ending import own_wish
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.roles import Initiator
from comity.session.events import Event
from comity.session.outcome import Outcome
from comity.session.replayable_stream import ReplayableStream
from comity.session.waiting import PEER_AWAY, Waits
from comity.store.store import Store
from comity.transport.peer_connection import PeerConnection

log = structlog.get_logger()


class InitiatedSession:
    """A session on its way.

    Args:
        contract: What was agreed, or is proposed.
        definition: Its protocol.
        store: Where it is kept.

    Attributes:
        contract: What was agreed, or is proposed.
        definition: Its protocol.
        waits: What it waits for.
        events: What happened since the node started.
        connections: The lines to the acceptors, while there are any.
        cancelled: Set when the operator does not want it any more.
        thread: What drives it.
        role: What works in it; None before the others agreed.
        again_at: When it is tried again, by the monotonic clock, where it stopped since somebody was away; None where it did
            not.
        why_stopped: Why it stopped; empty where it did not.
    """

    def __init__(self, contract: Contract, definition: ProtocolDefinition, store: Store) -> None:
        self.contract = contract
        self.definition = definition
        self.events: ReplayableStream[Event] = ReplayableStream()
        self.waits = Waits(store, contract.session, self.observe)
        self.connections: list[PeerConnection] = []
        self.cancelled = threading.Event()
        self.thread: threading.Thread | None = None
        self.role: Initiator | None = None
        self.again_at: float | None = None
        self.why_stopped = ""

    def take(self, role: Initiator) -> None:
        """Takes note of what works in it."""
        self.role = role

    def so_far(self, rounds: int) -> Outcome | None:
        """What the session came to until now; None before its first round is over, or while it is worked on.

        Args:
            rounds: Rounds that are finished.
        """
        if self.role is None or not rounds or (self.running and self.thread is not threading.current_thread()):
            return None
        try:
            return self.role.outcome()
        except Exception as error:  # noqa: BLE001 - it ends for another reason, which is told
            log.warning("nothing-kept", session=self.contract.session, error=str(error))
            return None

    @property
    def running(self) -> bool:
        """Whether it is active."""
        return self.thread is not None and self.thread.is_alive()

    def observe(self, event: Event) -> None:
        """Takes note of what happens."""
        log_event(self.contract.session, event)
        if event.kind == "session-stopped":
            self.why_stopped = str(event.fields["what"])
        self.events.append(event)

    def require_wanted(self) -> None:
        """Whether its work is to go on; see `interruption.point`."""
        if self.cancelled.is_set():
            raise interruption.Interrupted

    def pause(self, seconds: float) -> None:
        """Waits; raises where the operator does not want the session any more.

        Raises:
            SessionCancelled: That is so.
        """
        if self.cancelled.wait(seconds):
            raise own_wish()

    def observe_absence(self, connection: PeerConnection, error: ComityError | None) -> None:
        """Has the session wait for an acceptor that does not answer, until it does again."""
        if error is None:
            self.waits.end(PEER_AWAY, connection.party)
        else:
            self.waits.begin(PEER_AWAY, connection.party, wait_s=connection.retry.retry_s, why=str(error))

    def lose(self) -> None:
        """Stops to work on a session that another process has taken over; it goes on there."""
        for connection in self.connections:
            # As if the peers were away: the session stays as it is.
            connection.close()
        self.waits.give_up(
            NodeDraining("another process works on the session", action="follow it with comity watch there")
        )
