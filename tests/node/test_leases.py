"""Two processes of a party with one store: one of them works on a session, and the other takes over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta

import pytest

from comity.errors import InvalidValue, StateInUse
from comity.node.party import LocalParty
from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.acceptor import Acceptor
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.session.session_registry import SessionRegistry
from comity.simulation.in_process import parties
from comity.store.leases import Leases
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets

SCRIPT = """
[session]
protocol = "vote_pool"
acceptors = ["server"]
rounds = 1
[session.task]
input_shape = [1, 8, 8]
classes = 10
[party.server]
role = "server"
policy = { egress = ["contract", "vote"] }
[party.ann]
role = "client"
data = { source = "digits", per_class = 5 }
policy = { egress = ["contract", "vote"] }
"""
LONG = timedelta(hours=1)


class Process:
    """What one process of the server has: all but the store is its own."""

    def __init__(self, party: LocalParty, store: MemoryStore, owner: str) -> None:
        self.party = LocalParty(party.name, party.config, GivenSecrets(b"server"), store)
        self.party.leases = self.leases = Leases(store, owner, LONG)
        self.sessions = SessionRegistry(store)
        self.acceptor = Acceptor(self.party, AcceptedSessions(self.party, "server", self.sessions))

    def stop(self) -> None:
        self.acceptor.accepted.drain()
        self.leases.close()


Start = Callable[[str], Process]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def server() -> LocalParty:
    return parties(parse_script(SCRIPT))[1][0]


@pytest.fixture
def start(store: MemoryStore, server: LocalParty) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(owner: str) -> Process:
            process = Process(server, store, owner)
            stack.callback(process.stop)
            return process

        yield begin


def open_session(process: Process) -> None:
    process.acceptor.open(*draft_contract(parse_script(SCRIPT), process.party, "s-1"))


def test_a_session_is_opened_once_however_often_it_is_asked_for(start: Start) -> None:
    one = start("one")
    open_session(one)
    open_session(one)
    assert one.sessions.names == {"s-1"}
    other, definition = draft_contract(parse_script(SCRIPT), one.party, "s-1")
    with pytest.raises(InvalidValue, match="id is taken"):
        one.acceptor.open(other.model_copy(update={"seed": other.seed + 1}), definition)


def test_another_process_leaves_a_session_alone_until_it_is_let_go_of(start: Start, store: MemoryStore) -> None:
    one, two = start("one"), start("two")
    open_session(one)
    two.acceptor.accepted.restore()
    assert (one.sessions.names, two.sessions.names) == ({"s-1"}, set())
    one.stop()
    two.acceptor.accepted.restore()
    assert two.sessions.names == {"s-1"}
    assert store.take_lease("s-1", "one", LONG).owner == "two"


def test_a_process_that_starts_again_goes_on_at_once(start: Start) -> None:
    open_session(start("one"))
    again = start("one")
    again.acceptor.accepted.restore()
    assert again.sessions.names == {"s-1"}


def test_a_process_that_lost_a_session_leaves_it_as_it_is(start: Start, store: MemoryStore) -> None:
    one = start("one")
    open_session(one)
    events = one.acceptor.accepted.events("s-1")
    assert events is not None
    store.drop_lease("s-1", "one")
    two = start("two")
    two.acceptor.accepted.restore()
    one.acceptor.accepted._work.lose("s-1")
    assert (one.sessions.names, two.sessions.names) == (set(), {"s-1"})
    kept = store.find("s-1")
    assert kept is not None
    assert kept.state == "waiting", "for clients, as before"
    assert [event.kind for event in events][-1] == "session-stopped"


def test_an_ended_session_is_let_go_of(start: Start, store: MemoryStore) -> None:
    one = start("one")
    open_session(one)
    assert one.acceptor.accepted.cancel("s-1")
    assert store.take_lease("s-1", "two", LONG).owner == "two"


def test_a_session_that_cannot_begin_is_let_go_of(start: Start, store: MemoryStore) -> None:
    one = start("one")
    store.take_lease("s-1", "two", LONG)
    with pytest.raises(StateInUse, match="another process works on session s-1"):
        open_session(one)
    store.drop_lease("s-1", "two")
    assert store.take_lease("s-1", "three", LONG).owner == "three"
