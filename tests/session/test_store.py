"""One suite for every store: in memory, in SQLite, on a PostgreSQL server."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import make_url

from comity.errors import ComityError, InvalidValue, MissingFile, StateInUse, StorageFailed, UnknownSession
from comity.ledger.ledger import OWN, Chain, Fact, Head, LedgerSummary, Units, in_round, loaded
from comity.ledger.verification import verify
from comity.store.memory_store import MemoryStore
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.store.store import Record, Store, StoredSession, Waiting

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.time = BEGINNING

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Store]:
    if request.param == "memory":
        opened: Store = MemoryStore(clock=clock)
    else:
        opened = SqlStore(request.getfixturevalue(f"{request.param}_url"), clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def reopen(database: str) -> Iterator[Callable[..., SqlStore]]:
    """Opens the same database again and again; what is open is closed first."""
    with ExitStack() as stack:

        def open_again(**options: object) -> SqlStore:
            stack.pop_all().close()
            opened = SqlStore(database, **options)
            stack.callback(opened.close)
            return opened

        yield open_again


def make_fact(number: int = 0, **changes: object) -> Fact:
    values = {
        "matter": "intended",
        "session": "s-1",
        "units": in_round(1),
        "peer": "hospital",
        "direction": "sent",
        "kind": "checkpoint",
        "subject": f"{number:064x}",
        "size": 1000 + number,
    }
    return Fact(**(values | changes))


def make_session(name: str = "s-1", **changes: object) -> StoredSession:
    values = {"contract": {"rounds": 3, "rate": 0.1}, "own": {"party": "clinic"}, "peers": ({"party": "hospital"},)}
    return StoredSession(name, **(values | changes))


def assert_holds(store: Store, length: int) -> None:
    """The ledger holds, and has so many entries besides those of the node's own chain."""
    verify(store.chains())
    assert len(list(store.entries())) == length


def everything(store: Store) -> object:
    names = [each.session for each in store.sessions()]
    return loaded(store.chains()), list(store.sessions()), [list(store.records(name)) for name in names]


class TestLedger:
    def test_begins_empty(self, store: Store) -> None:
        assert store.head() == store.head("s-1", "hospital") == Head()
        assert list(store.entries()) == []
        assert list(store.entries("s-1")) == []
        assert loaded(store.chains()) == [Chain(OWN, Head(), [])]
        assert list(store.chains("s-1")) == []

    def test_keeps_facts_in_a_chain_for_each_peer_of_each_session(self, store: Store) -> None:
        facts = [make_fact(number, session=f"s-{number % 2}", peer=f"p-{number % 3 // 2}") for number in range(6)]
        for fact in facts:
            store.record(fact)
        own, *chains = loaded(store.chains())
        assert own.name == OWN
        assert [chain.name for chain in chains] == [("s-0", "p-0"), ("s-1", "p-0"), ("s-0", "p-1"), ("s-1", "p-1")]
        assert [[facts.index(entry.fact) for entry in chain.entries] for chain in chains] == [[0, 4], [1, 3], [2], [5]]
        for chain in chains:
            entries = list(chain.entries)
            assert [entry.index for entry in entries] == list(range(len(entries)))
            assert chain.head == store.head(*chain.name) == Head(len(entries), entries[-1].hash)
        # The node's own says which there are.
        assert [entry.fact for entry in own.entries] == [
            Fact("chain-opened", chain.name.session, peer=chain.name.peer) for chain in chains
        ]
        assert own.head == store.head()
        assert [facts.index(entry.fact) for entry in store.entries("s-1")] == [1, 3, 5]
        assert [facts.index(entry.fact) for entry in store.entries(peer="p-1")] == [2, 5]
        assert [facts.index(entry.fact) for entry in store.entries("s-1", "p-1")] == [5]
        assert_holds(store, 6)

    def test_a_chain_knows_nothing_of_others(self, store: Store) -> None:
        store.record(make_fact(0))
        head = store.head("s-1", "hospital")
        store.record(make_fact(1, session="s-2"))
        store.record(make_fact(2, peer="clinic"))
        assert store.head("s-1", "hospital") == head

    def test_a_chain_that_ended_takes_nothing_more(self, store: Store) -> None:
        store.record(make_fact())
        store.record(Fact("ended", "s-1", peer="hospital"))
        head = store.head("s-1", "hospital")
        own = list(next(iter(store.chains())).entries)
        assert own[-1].fact.matter == "chain-ended"
        assert own[-1].fact.body == {"length": 2, "hash": head.hash}
        # What it has already, it has.
        assert not store.record(make_fact())
        assert not store.record(Fact("ended", "s-1", peer="hospital"))
        before = everything(store)
        with pytest.raises(UnknownSession, match="has ended"):
            store.record(make_fact(1))
        assert everything(store) == before
        store.record(make_fact(1, peer="clinic"))
        assert_holds(store, 3)

    def test_what_happens_again_is_not_counted_again(self, store: Store) -> None:
        assert store.record(make_fact(size=10))
        head = store.head("s-1", "hospital")
        assert not store.record(make_fact(size=20, body={"another": True}))
        assert store.head("s-1", "hospital") == head
        assert [entry.fact.size for entry in store.entries()] == [10]

    @pytest.mark.parametrize(
        "change",
        [
            {"matter": "delivered"},
            {"session": "s-2"},
            {"units": in_round(2)},
            {"units": Units("request", 1, 1)},
            {"units": Units("round", 1, 2)},
            {"peer": "clinic"},
            {"direction": None},
            {"kind": "loss"},
            {"kind": None},
            {"subject": "another"},
        ],
    )
    def test_whatever_else_differs_is_another_fact(self, store: Store, change: dict[str, object]) -> None:
        store.record(make_fact())
        store.record(make_fact(**change))
        assert len(list(store.entries())) == 2

    def test_a_body_comes_back_as_json(self, store: Store) -> None:
        body = {"text": "Übergabe \u2028 \n", "float": 0.1, "list": (1, None, {"deep": [True]}), "large": 2**60}
        store.record(make_fact(body=body))
        (entry,) = store.entries()
        assert entry.fact.body == body | {"list": [1, None, {"deep": [True]}]}
        assert_holds(store, 1)

    def test_a_body_is_a_copy(self, store: Store) -> None:
        body = {"list": [1]}
        store.record(make_fact(body=body))
        body["list"].append(2)
        assert_holds(store, 1)

    def test_nan_is_refused_and_leaves_nothing(self, store: Store) -> None:
        with pytest.raises(ValueError, match="JSON"):
            store.record(make_fact(body={"loss": math.nan}))
        with pytest.raises(ValueError, match="JSON"):
            store.append("s-1", Record("trained", 1, {"loss": math.inf}))
        assert everything(store) == ([Chain(OWN, Head(), [])], [], [])

    def test_time_never_goes_back(self, store: Store, clock: Clock) -> None:
        for number, minutes in enumerate([0, 10, 5, 11]):
            clock.time = BEGINNING + timedelta(minutes=minutes)
            store.record(make_fact(number))
        times = [datetime.fromisoformat(entry.time) - BEGINNING for entry in store.entries()]
        assert times == [timedelta(minutes=minutes) for minutes in (0, 10, 10, 11)]
        assert_holds(store, 4)

    def test_is_summed_up_without_its_entries(self, store: Store, clock: Clock) -> None:
        assert store.summary(3) == LedgerSummary(0, {}, {}, [])
        for number, (session, matter, direction) in enumerate(
            [
                ("s-1", "intended", "sent"),
                ("s-2", "delivered", "received"),
                ("s-1", "delivered", "sent"),
                ("s-2", "delivered", "sent"),
                ("s-1", "privacy", None),
                ("s-2", "ended", None),
            ]
        ):
            crosses = {"direction": direction, "kind": direction and "loss", "subject": direction or "", "size": 10}
            body = {"epsilon": 2.5} if matter == "privacy" else {}
            store.record(Fact(matter, session, in_round(number + 1), "hospital", **crosses, body=body))  # type: ignore[arg-type]
            clock.time += timedelta(seconds=1)
        found = store.summary(3)
        assert (found.entries, found.sent, found.received) == (6, {"loss": 20}, {"loss": 10})
        assert [(each.fact.session, each.fact.matter) for each in found.tail] == [
            ("s-2", "delivered"),
            ("s-1", "privacy"),
            ("s-2", "ended"),
        ]
        assert [dict(each.body) for each in store.facts("privacy")] == [{"epsilon": 2.5}]
        # What the node's own chain says is nothing of the sessions'.
        assert list(store.facts("chain-opened")) == []

    def test_says_what_crossed_from_a_moment_on(self, store: Store, clock: Clock) -> None:
        def record(number: int, peer: str, direction: str, kind: str, matter: str = "delivered") -> None:
            where = {"direction": direction, "kind": kind, "subject": f"{number}", "size": number}
            store.record(Fact(matter, "s-1", in_round(1), peer, **where))  # type: ignore[arg-type]
            clock.time += timedelta(hours=1)

        record(1, "hospital", "sent", "loss")
        since = clock.time.isoformat(timespec="microseconds")
        record(2, "lab", "sent", "loss")
        record(4, "hospital", "received", "loss")
        record(8, "hospital", "received", "loss")
        record(16, "hospital", "sent", "update")
        record(32, "hospital", "sent", "update", "intended")
        assert store.crossed(since) == [
            ("received", "hospital", "loss", 12),
            ("sent", "hospital", "update", 16),
            ("sent", "lab", "loss", 2),
        ]
        assert store.crossed(clock.time.isoformat()) == []

    def test_entries_can_be_gone_through_again(self, store: Store) -> None:
        store.record(make_fact())
        entries = store.entries()
        assert list(entries) == list(entries) != []

    def test_many_entries(self, store: Store) -> None:
        with store.transaction():
            for number in range(4100):
                store.record(make_fact(number, session=f"s-{number % 2}"))
        assert_holds(store, 4100)
        assert [entry.fact.size for entry in store.entries("s-0")] == list(range(1000, 5100, 2))
        assert [entry.index for entry in store.entries("s-0")] == list(range(2050))


class TestSessions:
    def test_begins_empty(self, store: Store) -> None:
        assert list(store.sessions()) == []
        assert list(store.records("s-1")) == []

    def test_keeps_sessions_in_order(self, store: Store) -> None:
        names = ["b", "a", "c"]
        for name in names:
            store.save(make_session(name))
        store.save(
            make_session("b", state="finished", peers=({"party": "other"},), result={"digest": "ab", "n": (1, 2)})
        )
        assert [each.session for each in store.sessions()] == names
        assert store.sessions()[0] == make_session(
            "b", state="finished", peers=({"party": "other"},), result={"digest": "ab", "n": [1, 2]}
        )
        assert store.sessions()[1] == make_session("a")

    def test_finds_those_that_are_on_and_counts_whom_it_began_with(self, store: Store) -> None:
        for number, (state, initiator) in enumerate(
            [("finished", "clinic"), ("active", "clinic"), ("waiting", "hospital"), ("failed", ""), ("active", "")]
        ):
            contract = {"rounds": 3, "initiator": initiator or None}
            store.save(make_session(f"s-{number}", contract=contract, state=state, begun=f"2026-01-0{number + 1}"))
        assert [each.session for each in store.ongoing()] == ["s-1", "s-2", "s-4"]
        assert [store.begun("clinic", since) for since in ("2026-01-01", "2026-01-02", "2026-01-03")] == [2, 1, 0]
        assert store.begun("hospital", "") == 1
        store.save(make_session("s-1", state="cancelled"))
        assert [each.session for each in store.ongoing()] == ["s-2", "s-4"]

    def test_keeps_what_a_session_waits_for(self, store: Store) -> None:
        waits = (
            Waiting("approval", "clinic", "its operator", "comity sessions accept"),
            Waiting("labels", counts=False),
        )
        store.save(make_session(state="waiting", waits=waits))
        kept = store.find("s-1")
        assert kept == make_session(state="waiting", waits=waits)
        assert kept.is_on
        assert not kept.counts

    def test_keeps_a_journal_in_order(self, store: Store) -> None:
        records = [
            Record("offered", number, {"digest": f"{number:x}", "loss": 1 / (number + 1)}) for number in range(5)
        ]
        for record in records:
            store.append("s-1", record)
            store.append("s-2", Record("other"))
        assert list(store.records("s-1")) == records
        assert len(store.records("s-2")) == 5

    def test_forgets_a_journal_and_nothing_else(self, store: Store) -> None:
        store.save(make_session())
        store.record(make_fact())
        store.append("s-1", Record("offered"))
        store.append("s-1", Record("finished", 1, {"loss": 0.5}))
        store.append("s-2", Record("offered"))
        store.forget("s-1")
        store.forget("unknown")
        # How the rounds went is what people look back for.
        assert list(store.records("s-1")) == [Record("finished", 1, {"loss": 0.5})]
        assert len(store.records("s-2")) == 1
        assert len(store.sessions()) == 1
        assert_holds(store, 1)
        store.append("s-1", Record("again"))
        assert [each.kind for each in store.records("s-1")] == ["finished", "again"]


class Interrupted(Exception):
    """A caller's own error."""


def write_all(store: Store, number: int) -> None:
    store.record(make_fact(number))
    store.save(make_session("s-1", result={"number": number}))
    store.save(make_session(f"new-{number}"))
    store.append("s-1", Record("offered", number))
    store.append(f"new-{number}", Record("offered", number))


class TestTransactions:
    def test_a_failed_one_leaves_nothing(self, store: Store) -> None:
        write_all(store, 0)
        before = everything(store)
        for _ in range(2):
            with pytest.raises(Interrupted), store.transaction():
                write_all(store, 1)
                store.forget("s-1")
                store.append("s-1", Record("again"))
                raise Interrupted
            assert everything(store) == before
        write_all(store, 2)
        assert_holds(store, 2)
        assert [each.round for each in store.records("s-1")] == [0, 2]

    def test_sees_its_own_writes(self, store: Store) -> None:
        with store.transaction():
            write_all(store, 0)
            assert store.head("s-1", "hospital").length == 1
            assert [entry.hash for entry in store.entries()] == [store.head("s-1", "hospital").hash]
            assert [chain.head.length for chain in store.chains()] == [1, 1]
            assert len(store.records("s-1")) == 1
        assert_holds(store, 1)

    def test_an_inner_one_fails_alone(self, store: Store) -> None:
        with store.transaction():
            write_all(store, 0)
            with suppress(Interrupted), store.transaction():
                write_all(store, 1)
                raise Interrupted
            with store.transaction():
                write_all(store, 2)
        assert [entry.fact.size for entry in store.entries()] == [1000, 1002]
        assert [each.session for each in store.sessions()] == ["s-1", "new-0", "new-2"]
        assert [each.round for each in store.records("s-1")] == [0, 2]
        assert_holds(store, 2)

    def test_an_outer_one_takes_inner_ones_along(self, store: Store) -> None:
        before = everything(store)
        with suppress(Interrupted), store.transaction():
            with store.transaction():
                write_all(store, 0)
            raise Interrupted
        assert everything(store) == before

    def test_a_fact_that_was_taken_back_can_be_recorded(self, store: Store) -> None:
        with suppress(Interrupted), store.transaction():
            store.record(make_fact())
            raise Interrupted
        store.record(make_fact())
        assert_holds(store, 1)

    def test_nothing_of_an_open_one_is_seen_elsewhere(self, store: Store) -> None:
        seen: list[int] = []
        reader = threading.Thread(target=lambda: seen.append(len(list(store.entries()))))
        with store.transaction():
            store.record(make_fact(0))
            reader.start()
            reader.join(0.05)
            store.record(make_fact(1))
            assert seen == []
        reader.join()
        assert seen == [2]

    def test_threads_share_a_store(self, store: Store) -> None:
        def work(thread: int) -> None:
            for number in range(20):
                with store.transaction():
                    store.record(make_fact(number, session=f"s-{thread}"))
                    store.record(make_fact(number, session=f"s-{thread}", matter="delivered"))
                    store.append(f"s-{thread}", Record("sent", number))
                with suppress(Interrupted), store.transaction():
                    store.record(make_fact(number, session="never"))
                    raise Interrupted
                list(store.entries(f"s-{thread}"))

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
        assert_holds(store, 160)
        for thread in range(4):
            facts = [entry.fact for entry in store.entries(f"s-{thread}")]
            assert [fact.matter for fact in facts] == ["intended", "delivered"] * 20
            assert [each.round for each in store.records(f"s-{thread}")] == list(range(20))


MINUTE = timedelta(minutes=1)


class TestLeases:
    def test_one_at_a_time_works_on_a_session(self, store: Store, clock: Clock) -> None:
        taken = store.take_lease("s-1", "one", MINUTE)
        assert (taken.session, taken.owner) == ("s-1", "one")
        assert datetime.fromisoformat(taken.until) == BEGINNING + MINUTE
        assert store.take_lease("s-1", "two", MINUTE) == taken
        assert store.take_lease("s-2", "two", MINUTE).owner == "two"

    def test_whoever_has_it_renews_it(self, store: Store, clock: Clock) -> None:
        store.take_lease("s-1", "one", MINUTE)
        clock.time += MINUTE / 2
        until = store.take_lease("s-1", "one", MINUTE).until
        assert datetime.fromisoformat(until) == BEGINNING + 1.5 * MINUTE
        clock.time += MINUTE / 2
        assert store.take_lease("s-1", "two", MINUTE).owner == "one"

    def test_one_that_ran_out_is_taken_over(self, store: Store, clock: Clock) -> None:
        store.take_lease("s-1", "one", MINUTE)
        clock.time += MINUTE
        assert store.take_lease("s-1", "two", MINUTE).owner == "two"
        assert store.take_lease("s-1", "one", MINUTE).owner == "two"

    def test_one_that_was_let_go_is_free(self, store: Store) -> None:
        store.take_lease("s-1", "one", MINUTE)
        store.drop_lease("s-1", "two")
        assert store.take_lease("s-1", "two", MINUTE).owner == "one"
        store.drop_lease("s-1", "one")
        assert store.take_lease("s-1", "two", MINUTE).owner == "two"
        store.drop_lease("s-2", "two")

    def test_belongs_to_its_transaction(self, store: Store) -> None:
        with suppress(Interrupted), store.transaction():
            store.take_lease("s-1", "one", MINUTE)
            raise Interrupted
        assert store.take_lease("s-1", "two", MINUTE).owner == "two"
        with suppress(Interrupted), store.transaction():
            store.drop_lease("s-1", "two")
            raise Interrupted
        assert store.take_lease("s-1", "one", MINUTE).owner == "two"

    def test_of_many_at_once_one_gets_it(self, database: str) -> None:
        stores = [SqlStore(database) for _ in range(4)]
        with ThreadPoolExecutor(4) as threads:
            taken = list(threads.map(lambda pair: pair[1].take_lease("s-1", f"{pair[0]}", MINUTE), enumerate(stores)))
        assert len({lease.owner for lease in taken}) == 1
        for store in stores:
            store.close()


WRITES = 40
WRITER = f"""
import sys
from comity.ledger.ledger import Fact, in_round
from comity.store.sql_store import SqlStore

url, name = sys.argv[1:]
store = SqlStore(url)
print("ready", flush=True)
sys.stdin.readline()
for number in range({WRITES}):
    with store.transaction():
        for matter in ("intended", "delivered"):
            store.record(Fact(matter, f"s-{{name}}", in_round(number), "hospital", "sent", "loss", "x", 8))
    if number % 2 == (name == "b"):
        store.record(Fact("intended", "shared", in_round(number), "hospital", "sent", "loss", name, 8))
    store.record(Fact("intended", "shared", in_round(number), "hospital", "sent", "loss", "both", 8))
print("done", flush=True)
"""
"""Writes to a chain of its own and to one that another process writes to as well, partly the same."""


class TestDatabase:
    def test_keeps_everything(self, reopen: Callable[..., SqlStore]) -> None:
        store = reopen()
        for number in range(3):
            write_all(store, number)
        before = everything(store)
        assert everything(reopen()) == before
        assert everything(reopen(read_only=True)) == before
        store = reopen(durable=False)
        write_all(store, 3)
        assert_holds(store, 4)
        assert_holds(reopen(), 4)

    def test_a_reader_changes_nothing(self, reopen: Callable[..., SqlStore]) -> None:
        write_all(reopen(), 0)
        store = reopen(read_only=True)
        before = everything(store)
        for write in (lambda: store.record(make_fact(1)), lambda: write_all(store, 1), lambda: store.forget("s-1")):
            with pytest.raises(StorageFailed, match="read-only"):
                write()
        assert everything(store) == before

    def test_a_reader_sees_a_store_that_is_at_work(self, database: str) -> None:
        writer = SqlStore(database)
        write_all(writer, 0)
        reader = SqlStore(database, read_only=True)
        with reader.transaction():
            assert_holds(reader, 1)
            write_all(writer, 1)
            # Ledger and head are those of one moment.
            assert_holds(reader, 1)
        assert_holds(reader, 2)
        with writer.transaction():
            write_all(writer, 2)
            assert_holds(reader, 2)
        assert_holds(reader, 3)
        reader.close()
        writer.close()

    def test_a_closed_one_says_so(self, reopen: Callable[..., SqlStore]) -> None:
        store = reopen()
        store.close()
        with pytest.raises(StorageFailed, match="was closed"):
            store.record(make_fact())
        with pytest.raises(StorageFailed, match="was closed"):
            store.head()
        store.close()

    def test_an_error_within_a_transaction_ends_it(self, reopen: Callable[..., SqlStore]) -> None:
        store = reopen()
        write_all(store, 0)
        before = everything(store)
        with pytest.raises(StorageFailed, match="failed in this transaction"), store.transaction():
            store.record(make_fact(1))
            with suppress(StorageFailed):
                store.save(StoredSession("s-9", {}, {}, state=None))
            store.record(make_fact(2))
        assert everything(store) == before
        write_all(store, 3)
        assert_holds(store, 2)

    def test_an_error_in_an_inner_transaction_cannot_be_passed_over(self, reopen: Callable[..., SqlStore]) -> None:
        store = reopen()
        with pytest.raises(StorageFailed, match="failed in this transaction"), store.transaction():
            store.record(make_fact(1))
            with suppress(StorageFailed), store.transaction():
                store.save(StoredSession("s-9", {}, {}, state=None))
        assert list(store.entries()) == []

    def test_two_stores_take_turns(self, database: str) -> None:
        first, second = SqlStore(database), SqlStore(database)
        for number in range(3):
            first.record(make_fact(2 * number))
            second.record(make_fact(2 * number + 1))
            assert not first.record(make_fact(2 * number + 1))
        assert [entry.fact.size for entry in first.entries()] == list(range(1000, 1006))
        assert_holds(second, 6)
        first.close()
        second.close()

    def test_two_processes_write_at_once(self, database: str) -> None:
        """To chains of their own and to one that they share, of which none tears."""
        command = [sys.executable, "-c", WRITER, database]
        processes = [
            subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for name in ("a", "b")
        ]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            outputs = [process.communicate("\n", timeout=60)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        assert outputs == ["done\n", "done\n"]
        store = SqlStore(database, read_only=True)
        assert_holds(store, 6 * WRITES)
        assert {chain.name: chain.head.length for chain in store.chains()} == {
            OWN: 3,
            ("s-a", "hospital"): 2 * WRITES,
            ("s-b", "hospital"): 2 * WRITES,
            ("shared", "hospital"): 2 * WRITES,
        }
        store.close()

    def test_another_partys_store_is_refused(self, database: str) -> None:
        SqlStore(database, party="clinic").close()
        with pytest.raises(StateInUse, match="expected hospital, received clinic; give each node"):
            SqlStore(database, party="hospital")
        for options in ({"party": "clinic"}, {}, {"read_only": True}):
            SqlStore(database, **options).close()

    def test_a_lost_connection_is_made_again(self, postgresql_url: str, postgresql_server: Path) -> None:
        psycopg = pytest.importorskip("psycopg")
        store = SqlStore(postgresql_url)
        store.record(make_fact(0))
        with psycopg.connect(host=str(postgresql_server), user="comity", dbname="comity", autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        with pytest.raises(StorageFailed):
            store.record(make_fact(1))
        store.record(make_fact(2))
        assert [entry.fact.size for entry in store.entries()] == [1000, 1002]
        assert_holds(store, 2)
        store.close()


class TestUrl:
    def test_a_state_dir_may_have_any_name(self, tmp_path: Path) -> None:
        folder = tmp_path / "what? a #1 100% näme"
        folder.mkdir()
        store = SqlStore(store_url(folder))
        store.record(make_fact())
        store.close()
        assert (folder / "comity.db").is_file()

    @pytest.mark.parametrize("url", ["comity.db", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
    def test_others_are_refused(self, url: str) -> None:
        with pytest.raises(InvalidValue, match="store"):
            SqlStore(url)

    @pytest.mark.parametrize("url", ["comity:secret@127.0.0.1:1/comity", "comity@127.0.0.1:1/comity?password=secret"])
    def test_a_password_is_not_shown(self, url: str) -> None:
        with pytest.raises(StorageFailed) as caught:
            SqlStore(make_url(f"postgresql://{url}"))
        assert "secret" not in str(caught.value)
        assert "127.0.0.1" in str(caught.value)

    @pytest.mark.parametrize("url", ["://u:se/cret@host/db", "my sql://u@host/db?password=se/cret"])
    def test_nor_is_that_of_a_url_that_is_none(self, url: str) -> None:
        with pytest.raises(InvalidValue) as caught:
            SqlStore(url)
        assert "cret" not in str(caught.value)

    def test_there_is_nothing_to_read(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFile):
            SqlStore(store_url(tmp_path), read_only=True)
        assert list(tmp_path.iterdir()) == []


def test_what_is_recorded_takes_room(store: Store, request: pytest.FixtureRequest) -> None:
    before = store.size()
    with store.transaction():
        for number in range(200):
            store.save(
                StoredSession(f"s-{number}", {"acceptors": ["hospital"], "text": "x" * 1000}, {"party": "clinic"})
            )
    is_kept = "memory" not in request.node.name
    assert store.size() - before >= (200_000 if is_kept else 0)


@pytest.mark.parametrize("value", [b"\xff\x00", 5, 1e400, None, "[", "{}"], ids=repr)
def test_a_column_of_another_type_is_damage_and_nothing_else(sqlite_url: str, value: object) -> None:
    with closing(SqlStore(sqlite_url, durable=False)) as store:
        store.save(StoredSession("s-1", {"a": 1}, {"party": "clinic"}, ({"party": "hospital"},), begun="2026-01-01"))
        store.append("s-1", Record("offered", 1, {"digest": "ab"}))
        store.record(Fact("agreed", "s-1", in_round(0), "hospital", body={"contract": "c"}))
    file = Path(str(make_url(sqlite_url).database))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        columns = [
            (table, name)
            for table in ("sessions", "journal", "ledger")
            for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")
        ]
    whole = file.read_bytes()
    readers: list[Callable[[SqlStore], object]] = [
        SqlStore.sessions,
        lambda store: store.records("s-1"),
        lambda store: verify(store.chains()),
    ]
    for table, column in columns:
        file.write_bytes(whole)
        # Some columns do not take some values: then nothing is changed.
        with closing(sqlite3.connect(file)) as connection, suppress(sqlite3.Error), connection:
            connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
        for read in readers:
            with suppress(ComityError), closing(SqlStore(sqlite_url, read_only=True)) as store:
                read(store)
