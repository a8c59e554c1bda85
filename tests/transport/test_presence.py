"""A peer that is away: who calls it knows, and where a role can do without it, a round goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comity.errors import PeerUnreachable
from comity.session.events import Event
from comity.session.presence import ABSENT, Attendance
from comity.session.waiting import PEER_AWAY, Waits
from comity.store.journal import Journal
from comity.store.memory_store import MemoryStore
from comity.store.store import StoredSession
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy


class Role:
    """Asks two peers in every round, and goes on without one that is away."""

    def __init__(self, store: MemoryStore, peers: dict[str, PeerConnection], method: Callable[..., Any]) -> None:
        self.told: list[Event] = []
        waits = Waits(store, "s-1", self.told.append)
        self.attendance = Attendance(Journal(store, "s-1"), waits, self.told.append)
        self._peers = peers
        self._method = method
        for party, connection in peers.items():

            def away(error: object, party: str = party) -> None:
                waits.end(PEER_AWAY, party) if error is None else waits.begin(PEER_AWAY, party)

            connection.presence.on_change = away

    def round(self, number: int) -> dict[str, bytes | None]:
        """What each peer answers."""
        return {
            party: self.attendance.ask(
                number,
                party,
                connection.presence,
                lambda connection=connection: connection.call(self._method(connection.channel), b"part"),  # type: ignore[misc]
                wait_s=0.3,
            )
            for party, connection in self._peers.items()
        }


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.save(StoredSession("s-1", {}, {}))
    return store


def test_a_round_goes_on_without_a_peer_and_is_replayed_so(
    store: MemoryStore,
    echo: Callable[..., Any],
    connect: Callable[..., PeerConnection],
    method: Callable[..., Any],
    free_address: str,
) -> None:
    here = echo().address
    peers = {
        "hospital": connect(here, party="hospital"),
        "lab": connect(free_address, party="lab", retry=RetryPolicy(call_s=5.0, retry_s=600.0)),
    }
    role = Role(store, peers, method)
    assert role.round(1) == {"hospital": b"part", "lab": None}
    assert role.attendance.absent(1) == {"lab"}
    assert peers["lab"].presence.is_away
    assert [each.kind for each in role.told] == ["waiting", "waiting-over", "peer-absent"]
    kept = store.find("s-1")
    assert kept is not None
    assert kept.state == "active", "it goes on without the lab, and waits for nobody"
    # After a restart, the lab is back: what was decided stays, and the next round has it.
    again = Role(store, {"hospital": peers["hospital"], "lab": connect(here, party="lab")}, method)
    assert again.round(1) == {"hospital": b"part", "lab": None}
    assert again.round(2) == {"hospital": b"part", "lab": b"part"}
    assert [(each.round, each.fields["party"]) for each in store.records("s-1") if each.kind == ABSENT] == [(1, "lab")]


def test_whoever_cannot_do_without_waits_as_long_as_the_node_does(
    connect: Callable[..., PeerConnection], method: Callable[..., Any], free_address: str
) -> None:
    connection = connect(free_address, retry=RetryPolicy(call_s=1.0, retry_s=0.2))
    told: list[object] = []
    connection.presence.on_change = told.append
    for _ in range(2):
        with pytest.raises(PeerUnreachable):
            connection.call(method(connection.channel), b"")
    assert [type(each) for each in told] == [PeerUnreachable], "once an absence"


def test_a_peer_that_comes_back_is_heard(
    echo: Callable[..., Any], connect: Callable[..., PeerConnection], method: Callable[..., Any], free_address: str
) -> None:
    connection = connect(free_address, retry=RetryPolicy(call_s=5.0, retry_s=30.0))
    told: list[object] = []

    def on_change(error: object) -> None:
        told.append(error)
        if error is not None:
            echo(address=free_address)

    connection.presence.on_change = on_change
    assert connection.call(method(connection.channel), b"hello") == b"hello"
    assert [each is None for each in told] == [False, True]
    assert not connection.presence.is_away
