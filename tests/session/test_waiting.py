"""A session that waits: what for is kept with it, and told."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from comity.errors import InvalidValue, SessionCancelled
from comity.session.events import Event
from comity.session.waiting import PEER_AWAY, Reason, Waits
from comity.store.memory_store import MemoryStore
from comity.store.store import StoredSession

LABELS = Reason("labels", "labels of {subject}", "comity annotate import", counts=False)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.save(StoredSession("s-1", {}, {}))
    return store


def state(store: MemoryStore) -> tuple[str, list[str]]:
    kept = store.find("s-1")
    assert kept is not None
    return kept.state, [each.waits_for for each in kept.waits]


def test_a_role_waits_and_goes_on(store: MemoryStore) -> None:
    told: list[Event] = []
    waits = Waits(store, "s-1", told.append)
    with waits.until(LABELS, "12 samples", samples=12):
        assert state(store) == ("waiting", ["labels of 12 samples"])
    assert state(store) == ("active", [])
    begun, over = told
    assert (begun.kind, begun.fields["reason"], begun.fields["samples"]) == ("waiting", "labels", 12)
    assert begun.fields["ends_with"] == "comity annotate import"
    assert (over.kind, over.fields) == ("waiting-over", {"reason": "labels", "subject": "12 samples"})


def test_a_session_waits_for_several_things_at_a_time(store: MemoryStore) -> None:
    waits = Waits(store, "s-1")
    waits.begin(PEER_AWAY, "lab")
    waits.begin(PEER_AWAY, "office")
    waits.begin(PEER_AWAY, "lab")
    assert state(store) == ("waiting", ["lab, which does not answer", "office, which does not answer"])
    waits.end(PEER_AWAY, "lab")
    assert state(store) == ("waiting", ["office, which does not answer"])
    waits.end(PEER_AWAY, "office")
    assert state(store) == ("active", [])


def test_the_reason_says_whether_the_session_counts(store: MemoryStore) -> None:
    waits = Waits(store, "s-1")
    counted = []
    for reason in (PEER_AWAY, LABELS):
        waits.begin(reason)
        kept = store.find("s-1")
        assert kept is not None
        counted.append(kept.counts)
    assert counted == [True, False]


def test_what_stops_meanwhile_still_waits(store: MemoryStore) -> None:
    with pytest.raises(KeyboardInterrupt), Waits(store, "s-1").until(LABELS):
        raise KeyboardInterrupt
    assert state(store)[0] == "waiting"


def test_a_session_that_is_over_waits_no_more(store: MemoryStore) -> None:
    store.save(StoredSession("s-1", {}, {}, state="finished"))
    Waits(store, "s-1").begin(LABELS)
    assert state(store) == ("finished", [])
    Waits(store, "s-2").begin(LABELS)
    assert store.find("s-2") is None


def test_whoever_works_waits_for_somebody(store: MemoryStore) -> None:
    """As a session does whose labels people give: it goes on when they are there."""
    told: list[Event] = []
    ready = threading.Event()

    def label(event: Event) -> None:
        told.append(event)
        assert event.kind != "waiting" or state(store)[0] == "waiting"
        ready.set()

    Waits(store, "s-1", label).wait(LABELS, ready, "12 samples", samples=12)
    assert [each.kind for each in told] == ["waiting", "waiting-over"]
    assert state(store) == ("active", [])


def test_a_session_that_is_given_up_waits_no_more(store: MemoryStore) -> None:
    begun = threading.Event()
    waits = Waits(store, "s-1", lambda event: begun.set())
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(waits.wait, LABELS, threading.Event(), "12 samples")
        assert begun.wait(20)
        waits.give_up(SessionCancelled("its operator does not want it"))
        with pytest.raises(SessionCancelled):
            working.result(20)
    # Nor does whoever comes to wait afterwards; how the session stands is for whoever gave it up to say.
    with pytest.raises(SessionCancelled):
        waits.wait(LABELS, threading.Event(), "12 samples")
    assert state(store) == ("waiting", ["labels of 12 samples"])


def test_a_session_that_has_done_its_work_ends_well_when_its_operator_says_so(store: MemoryStore) -> None:
    serving = Reason("serving", "questions", "comity cancel {session}", concludes=True)
    waits = Waits(store, "s-1")
    waits.begin(LABELS)
    assert not waits.conclude()
    assert not waits.concluded.is_set()
    waits.begin(serving)
    assert waits.conclude()
    assert waits.concluded.is_set()
    waits.end(serving)
    assert not waits.conclude()


def test_whoever_waits_in_turns_of_its_own_is_told_that_it_is_given_up(store: MemoryStore) -> None:
    waits = Waits(store, "s-1")
    waits.require_going_on()
    waits.give_up(SessionCancelled("its operator does not want it"))
    with pytest.raises(SessionCancelled):
        waits.require_going_on()


def test_something_is_done_again_and_again_while_a_session_waits(store: MemoryStore) -> None:
    waits, ready, turns = Waits(store, "s-1"), threading.Event(), []

    def meanwhile() -> None:
        turns.append(state(store)[0])
        if len(turns) == 3:
            ready.set()

    waits.wait(LABELS, ready, every_s=0.001, meanwhile=meanwhile)
    assert turns == ["waiting"] * 3
    assert state(store) == ("active", [])


def test_who_needs_an_operator_is_told_where_there_is_none(store: MemoryStore) -> None:
    Waits(store, "s-1").require_operator("a decision")
    with pytest.raises(InvalidValue, match="a decision needs an operator"):
        Waits(store, "s-2").require_operator("a decision")
