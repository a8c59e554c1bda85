"""What was done to a ledger, and that `verify` names the first entry that it was done to."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import InvalidValue, LedgerBroken
from comity.ledger.charges import Charge, rounds_charged
from comity.ledger.comparison import common_sessions, compare
from comity.ledger.exported import Exported, Link, export, load
from comity.ledger.ledger import GENESIS, Entry, Fact, Head
from comity.ledger.receipts import SignedStatement, Signer, Statement, subject_of
from comity.ledger.verification import Verified, verify
from comity.store.memory_store import MemoryStore
from comity.store.sql_store import SqlStore, store_url
from comity.store.store import Store

CONTRACT = "c" * 64
ROUNDS = 3


@dataclass(frozen=True)
class Party:
    """One side: its ledger and its key."""

    name: str
    store: Store
    signer: Signer

    def state(self, kind: str, round: int, subject: str, peer: str) -> SignedStatement:
        signed = self.signer.state(kind, "s-1", CONTRACT, round, subject, self.store.head())
        self.keep(signed, "sent", peer)
        return signed

    def keep(self, signed: SignedStatement, direction: str, peer: str) -> None:
        statement = signed.statement
        fact = Fact("receipt", "s-1", statement.round, peer, direction, None, statement.kind, 0, signed.to_json())
        self.store.record(fact)


def make_party(name: str, store: Store | None = None) -> Party:
    return Party(name, store or MemoryStore(), Signer.from_seed(name.encode().ljust(32), name))


def member(party: Party) -> dict[str, Any]:
    role = "learner" if party.name == "clinic" else "provider"
    return {"party": party.name, "role": role, "samples": 100, "receipt_key": party.signer.public_key}


def play(initiator: Party, acceptor: Party, rounds: int = ROUNDS) -> None:
    """A session as the roles record it."""
    parties = {initiator.name: initiator, acceptor.name: acceptor}

    def send(sender: Party, kind: str, subject: str, size: int, round: int) -> None:
        (receiver,) = (each for name, each in parties.items() if name != sender.name)
        what = (kind, subject, size)
        sender.store.record(Fact("intended", "s-1", round, receiver.name, "sent", *what))
        receiver.store.record(Fact("delivered", "s-1", round, sender.name, "received", *what))
        sender.store.record(Fact("delivered", "s-1", round, receiver.name, "sent", *what))

    body = {"contract": CONTRACT, "members": [member(initiator), member(acceptor)]}
    initiator.store.record(Fact("opened", "s-1", 0, acceptor.name, body=body))
    acceptor.store.record(Fact("opened", "s-1", 0, initiator.name, body=body))
    for round in range(1, rounds + 1):
        send(initiator, "checkpoint", f"{round:032x}aa", 1000, round)
        send(initiator, "loss", f"{round}.0", 8, round)
        request = initiator.state("request", round, f"{round:032x}ff", acceptor.name)
        acceptor.keep(request, "received", initiator.name)
        initiator.keep(acceptor.state("receipt", round, f"{round:032x}ff", initiator.name), "received", acceptor.name)
        send(acceptor, "checkpoint", f"{round:032x}bb", 1000, round)
        acceptor.keep(
            initiator.state("acknowledgement", round, f"{round:032x}bb", acceptor.name), "received", initiator.name
        )
    initiator.store.record(Fact("ended", "s-1", 0, acceptor.name))
    acceptor.store.record(Fact("ended", "s-1", 0, initiator.name))


@pytest.fixture(scope="module")
def parties() -> tuple[Party, Party]:
    initiator, acceptor = make_party("clinic"), make_party("hospital")
    play(initiator, acceptor)
    return initiator, acceptor


@pytest.fixture(scope="module")
def whole(parties: tuple[Party, Party]) -> Exported:
    """The initiator's ledger, in which nothing is wrong."""
    store = parties[0].store
    return Exported(list(store.entries()), store.head())


def first_bad(entries: Iterable[Entry | Link], head: Head, **options: Any) -> int:
    """The entry that `verify` names."""
    with pytest.raises(LedgerBroken) as caught:
        verify(entries, head, **options)
    named = re.match(r"ledger entry (\d+) ", str(caught.value))
    assert named is not None, str(caught.value)
    return int(named[1])


def rechained(entries: Sequence[Entry], start: int = 0) -> tuple[list[Entry], Head]:
    """What somebody makes of a ledger who knows how its hashes are made."""
    made = list(entries[:start])
    for index, entry in enumerate(entries[start:], start=start):
        moved = replace(entry, index=index, previous=made[-1].hash if made else GENESIS)
        made.append(replace(moved, hash=moved.computed_hash()))
    return made, Head(len(made), made[-1].hash)


def place_of(entries: Iterable[Entry], *, kind: str, round: int, direction: str = "sent") -> int:
    """Where a statement stands."""
    wanted = ("receipt", kind, round, direction)
    return next(
        entry.index
        for entry in entries
        if (entry.fact.matter, entry.fact.subject, entry.fact.round, entry.fact.direction) == wanted
    )


def restated(
    entries: Sequence[Entry], index: int, signer: Signer | None = None, **changes: Any
) -> tuple[list[Entry], Head]:
    """A ledger with another statement at an entry, chained anew; signed by `signer`, else as it was."""
    entry = entries[index]
    signed = SignedStatement.from_json(entry.fact.body)
    statement = replace(signed.statement, **changes)
    if signer is not None:
        head = Head(statement.head_length, statement.head_hash)
        signed = signer.state(
            statement.kind, statement.session, statement.contract, statement.round, statement.subject, head
        )
        statement = replace(signed.statement, party=statement.party)
    body = SignedStatement(statement, signed.signature).to_json()
    edited = [*entries[:index], replace(entry, fact=replace(entry.fact, body=body)), *entries[index + 1 :]]
    return rechained(edited, index)


class TestWhole:
    def test_both_ledgers_hold(self, parties: tuple[Party, Party]) -> None:
        for party in parties:
            entries = list(party.store.entries())
            assert verify(entries, party.store.head()) == Verified(len(entries), 1, 3 * ROUNDS, ROUNDS)

    def test_an_empty_one_holds(self) -> None:
        assert verify([], Head()) == Verified(0, 0, 0, 0)
        assert first_bad([], Head(0, "1" * 64)) == 0

    def test_known_keys(self, whole: Exported, parties: tuple[Party, Party]) -> None:
        keys = {party.name: party.signer.public_key for party in parties}
        verify(whole.lines, whole.head, keys=keys)
        assert first_bad(whole.lines, whole.head, keys=keys | {"hospital": "0" * 64}) == 0


OTHER_VALUES: dict[str, Callable[[Any], Any]] = {
    "index": lambda index: index + 1,
    "time": lambda _: "2020-01-01T00:00:00.000000+00:00",
    "previous": lambda _: "1" * 64,
    "hash": lambda _: "2" * 64,
    "matter": lambda matter: "ended" if matter != "ended" else "opened",
    "session": lambda session: f"{session}x",
    "round": lambda number: number + 1,
    "peer": lambda _: "somebody",
    "direction": lambda direction: "received" if direction != "received" else None,
    "kind": lambda kind: "update" if kind != "update" else None,
    "subject": lambda subject: f"{subject}0",
    "size": lambda number: number + 1,
    "body": lambda body: {**body, "more": 1},
}


def edited(entry: Entry, name: str, value: Any) -> Entry:
    if name in {each.name for each in fields(Entry)}:
        return replace(entry, **{name: value})
    return replace(entry, fact=replace(entry.fact, **{name: value}))


class TestChain:
    def test_every_field_is_tried(self) -> None:
        names = [each.name for kind in (Entry, Fact) for each in fields(kind) if each.name != "fact"]
        assert sorted(OTHER_VALUES) == sorted(names)

    @pytest.mark.parametrize("name", OTHER_VALUES)
    def test_an_edited_field(self, whole: Exported, name: str) -> None:
        for index, entry in enumerate(whole.lines):
            now = getattr(entry, name) if hasattr(entry, name) else getattr(entry.fact, name)
            changed = edited(entry, name, OTHER_VALUES[name](now))
            lines = [*whole.lines[:index], changed, *whole.lines[index + 1 :]]
            assert first_bad(lines, whole.head) == index

    @given(data=st.data())
    def test_any_edits(self, whole: Exported, data: st.DataObject) -> None:
        lines = list(whole.lines)
        indices = data.draw(st.sets(st.integers(0, len(lines) - 1), min_size=1, max_size=3))
        values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just({"a": 1})
        for index in indices:
            name = data.draw(st.sampled_from(sorted(OTHER_VALUES)))
            entry = lines[index]
            now = getattr(entry, name) if hasattr(entry, name) else getattr(entry.fact, name)
            # Python takes 1 for True and for 1.0; the canonical form does not.
            value = data.draw(values.filter(lambda each, now=now: repr(each) != repr(now)))
            lines[index] = edited(entry, name, value)
        assert first_bad(lines, whole.head) == min(indices)

    @given(data=st.data())
    def test_any_change_of_order(self, whole: Exported, data: st.DataObject) -> None:
        lines = data.draw(st.permutations(whole.lines))
        moved = [index for index, entry in enumerate(lines) if entry.index != index]
        if moved:
            assert first_bad(lines, whole.head) == moved[0]

    def test_a_deleted_tail(self, whole: Exported) -> None:
        for length in range(len(whole.lines)):
            assert first_bad(whole.lines[:length], whole.head) == length

    def test_a_deleted_entry(self, whole: Exported) -> None:
        for index in range(len(whole.lines)):
            lines = [*whole.lines[:index], *whole.lines[index + 1 :]]
            assert first_bad(lines, whole.head) == index
            closed = [replace(entry, index=place) for place, entry in enumerate(lines)]
            assert first_bad(closed, whole.head) == index

    def test_two_entries_swapped(self, whole: Exported) -> None:
        for index in range(len(whole.lines) - 1):
            for other in range(index + 1, len(whole.lines), 7):
                lines = list(whole.lines)
                lines[index], lines[other] = lines[other], lines[index]
                assert first_bad(lines, whole.head) == index
                renumbered = [replace(entry, index=place) for place, entry in enumerate(lines)]
                assert first_bad(renumbered, whole.head) == index

    def test_an_entry_more(self, whole: Exported) -> None:
        length = len(whole.lines)
        more, _ = rechained([*whole.lines, replace(whole.lines[-1], fact=Fact("ended", "s-2"))], length)
        assert first_bad(more, whole.head) == length

    def test_a_new_tail(self, whole: Exported) -> None:
        length = len(whole.lines)
        other, _ = rechained([*whole.lines[:-1], replace(whole.lines[-1], fact=Fact("ended", "s-2"))], length - 1)
        assert first_bad(other, whole.head) == length - 1

    @pytest.mark.parametrize("time", ["", "yesterday", "2026-01-01T00:00:00", 7, None])
    def test_no_time(self, whole: Exported, time: Any) -> None:
        lines, head = rechained([*whole.lines[:-1], replace(whole.lines[-1], time=time)])
        assert first_bad(lines, head) == len(lines) - 1

    def test_time_that_steps_back(self, whole: Exported) -> None:
        early = replace(whole.lines[-1], time="2020-01-01T00:00:00.000000+00:00")
        lines, head = rechained([*whole.lines[:-1], early])
        assert first_bad(lines, head) == len(lines) - 1

    def test_a_fact_twice(self, whole: Exported) -> None:
        again = replace(whole.lines[2], fact=replace(whole.lines[2].fact, size=5), time=whole.lines[-1].time)
        lines, head = rechained([*whole.lines, again])
        assert first_bad(lines, head) == len(whole.lines)

    def test_what_left_without_an_intention(self, whole: Exported) -> None:
        index = next(entry.index for entry in whole.lines if entry.fact.matter == "intended")
        lines, head = rechained([*whole.lines[:index], *whole.lines[index + 1 :]])
        # The delivery, in its new place.
        assert first_bad(lines, head) == index

    @pytest.mark.parametrize("changes", [{"matter": "guessed"}, {"direction": None}, {"matter": "intended"}])
    def test_no_known_matter(self, whole: Exported, changes: dict[str, Any]) -> None:
        index = next(
            entry.index
            for entry in whole.lines
            if (entry.fact.matter, entry.fact.direction) == ("delivered", "received")
        )
        entry = whole.lines[index]
        strange = replace(entry, fact=replace(entry.fact, **changes))
        lines, head = rechained([*whole.lines[:index], strange, *whole.lines[index + 1 :]])
        assert first_bad(lines, head) == index


STATEMENT_VALUES: dict[str, Any] = {
    "kind": "acknowledgement",
    "party": "somebody",
    "session": "s-2",
    "contract": "d" * 64,
    "round": 7,
    "subject": "e" * 64,
    "head_length": 1,
    "head_hash": "f" * 64,
}


class TestStatements:
    """By somebody who knows how to chain a ledger anew, so that statements are all that is left to go by."""

    def test_every_field_is_tried(self) -> None:
        assert list(STATEMENT_VALUES) == [each.name for each in fields(Statement)]

    @pytest.mark.parametrize("kind", ["request", "receipt"])
    @pytest.mark.parametrize("name", STATEMENT_VALUES)
    def test_an_edited_statement(self, whole: Exported, kind: str, name: str) -> None:
        direction = "sent" if kind == "request" else "received"
        index = place_of(whole.lines, kind=kind, round=2, direction=direction)
        assert first_bad(*restated(whole.lines, index, **{name: STATEMENT_VALUES[name]})) == index

    @pytest.mark.parametrize("name", STATEMENT_VALUES)
    @pytest.mark.parametrize("value", [None, True, 1.5, [], {}])
    def test_a_statement_of_another_type(self, whole: Exported, name: str, value: Any) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        assert first_bad(*restated(whole.lines, index, **{name: value})) == index

    @pytest.mark.parametrize("signature", ["", "00" * 64, "not hexadecimal"])
    def test_an_edited_signature(self, whole: Exported, signature: str) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        entry = whole.lines[index]
        fact = replace(entry.fact, body={**entry.fact.body, "signature": signature})
        lines = [*whole.lines[:index], replace(entry, fact=fact), *whole.lines[index + 1 :]]
        assert first_bad(*rechained(lines, index)) == index

    def test_what_it_is_about_may_be_kept_with_it(self, whole: Exported) -> None:
        index = place_of(whole.lines, kind="receipt", round=ROUNDS, direction="received")
        content: dict[str, Any] = {"round": ROUNDS, "contribution": 0.1 + 0.2, "kept": 7}
        hospital = Signer.from_seed(b"hospital".ljust(32), "hospital")
        lines, _ = restated(whole.lines, index, hospital, kind="statement", subject=subject_of(content).hex())

        def keeping(value: Any) -> tuple[list[Entry], Head]:
            fact = replace(lines[index].fact, subject="statement", body=lines[index].fact.body | {"content": value})
            return rechained([*lines[:index], replace(lines[index], fact=fact)], index)

        verify(*keeping(content))
        for changed in (content | {"contribution": 0.4}, {}, {**content, "paid": 1}, "all of it"):
            assert first_bad(*keeping(changed)) == index

    @pytest.mark.parametrize("body", [{}, {"statement": 1, "signature": ""}, {"statement": {}, "signature": ""}])
    def test_no_statement(self, whole: Exported, body: dict[str, Any]) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        entry = whole.lines[index]
        lines = [*whole.lines[:index], replace(entry, fact=replace(entry.fact, body=body)), *whole.lines[index + 1 :]]
        assert first_bad(*rechained(lines, index)) == index

    def test_forged_with_another_key(self, whole: Exported) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        forger = Signer.from_seed(b"f" * 32, "hospital")
        assert first_bad(*restated(whole.lines, index, forger)) == index

    def test_forged_with_ones_own_key(self, whole: Exported, parties: tuple[Party, Party]) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        assert first_bad(*restated(whole.lines, index, parties[0].signer)) == index

    def test_forged_with_a_key_of_ones_own_in_the_opening(self, whole: Exported, parties: tuple[Party, Party]) -> None:
        forger = make_party("hospital")
        forger = replace(forger, signer=Signer.from_seed(b"f" * 32, "hospital"))
        body = {"contract": CONTRACT, "members": [member(parties[0]), member(forger)]}
        opening = replace(whole.lines[0], fact=replace(whole.lines[0].fact, body=body))
        lines, head = rechained([opening, *whole.lines[1:]])
        # Own statements quote the old chain, whatever the other party's key.
        assert first_bad(lines, head) == place_of(whole.lines, kind="request", round=1)
        keys = {"hospital": parties[1].signer.public_key}
        assert first_bad(lines, head, keys=keys) == 0

    def test_replayed_in_another_round(self, whole: Exported) -> None:
        source = place_of(whole.lines, kind="receipt", round=1, direction="received")
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        entry = whole.lines[index]
        fact = replace(entry.fact, body=whole.lines[source].fact.body)
        lines = [*whole.lines[:index], replace(entry, fact=fact), *whole.lines[index + 1 :]]
        assert first_bad(*rechained(lines, index)) == index

    def test_replayed_in_the_same_round(self, whole: Exported) -> None:
        index = place_of(whole.lines, kind="receipt", round=3, direction="received")
        entry = whole.lines[index]
        # The same once more, as if it were about something else.
        again = replace(entry, fact=replace(entry.fact, subject="receipt again"), time=whole.lines[-1].time)
        assert first_bad(*rechained([*whole.lines, again])) == len(whole.lines)

    def test_replayed_in_another_session(self, whole: Exported) -> None:
        last = whole.lines[-1].time
        opening = replace(whole.lines[0], fact=replace(whole.lines[0].fact, session="s-2"), time=last)
        request = whole.lines[place_of(whole.lines, kind="request", round=1)]
        replayed = replace(request, fact=replace(request.fact, session="s-2"), time=last)
        assert first_bad(*rechained([*whole.lines, opening, replayed])) == len(whole.lines) + 1

    def test_of_a_session_that_was_not_opened(self, whole: Exported) -> None:
        lines, head = rechained(whole.lines[1:])
        assert first_bad(lines, head) == place_of(lines, kind="request", round=1)

    @pytest.mark.parametrize(
        "body",
        [
            {"contract": "d" * 64, "members": [{"party": "clinic", "receipt_key": "00"}]},
            {"contract": CONTRACT, "members": [{"party": "hospital", "receipt_key": "00"}]},
            {"contract": CONTRACT, "members": [{"party": "hospital"}]},
            {"contract": CONTRACT, "members": ["hospital"]},
            {"contract": CONTRACT, "members": []},
            {"contract": 7, "members": [{"party": "clinic", "receipt_key": "00"}]},
            {},
        ],
    )
    def test_opened_again_otherwise(self, whole: Exported, body: dict[str, Any]) -> None:
        opening = replace(whole.lines[0].fact, peer="third", body=body)
        lines, head = rechained([*whole.lines, replace(whole.lines[-1], fact=opening)])
        assert first_bad(lines, head) == len(whole.lines)

    def test_quotes_what_is_not_written_yet(self, whole: Exported, parties: tuple[Party, Party]) -> None:
        index = place_of(whole.lines, kind="acknowledgement", round=ROUNDS)
        for length in (-1, index + 1, 10**9):
            changed = restated(whole.lines, index, parties[0].signer, head_length=length)
            assert first_bad(*changed) == index

    def test_quotes_another_chain_than_its_own(self, whole: Exported, parties: tuple[Party, Party]) -> None:
        index = place_of(whole.lines, kind="acknowledgement", round=ROUNDS)
        changed = restated(whole.lines, index, parties[0].signer, head_hash="f" * 64)
        assert first_bad(*changed) == index

    @pytest.mark.parametrize("at", range(1, 5))
    def test_an_edit_before_an_own_statement_contradicts_it(self, whole: Exported, at: int) -> None:
        entry = whole.lines[at]
        lines = [*whole.lines[:at], replace(entry, fact=replace(entry.fact, size=5)), *whole.lines[at + 1 :]]
        assert first_bad(*rechained(lines, at)) == place_of(whole.lines, kind="request", round=1)

    @pytest.mark.parametrize("quoted", [{"head_length": 2}, {"head_hash": "f" * 64}])
    def test_a_peer_whose_ledger_shrank_or_changed(
        self, whole: Exported, parties: tuple[Party, Party], quoted: dict[str, Any]
    ) -> None:
        first = place_of(whole.lines, kind="receipt", round=2, direction="received")
        index = place_of(whole.lines, kind="receipt", round=3, direction="received")
        before = SignedStatement.from_json(whole.lines[first].fact.body).statement
        same = {"head_length": before.head_length, "head_hash": before.head_hash}
        changed = restated(whole.lines, index, parties[1].signer, **(same | quoted))
        assert first_bad(*changed) == index


class TestCharges:
    def test_rounds_charged(self, parties: tuple[Party, Party]) -> None:
        for party, peer in (parties, reversed(parties)):
            expected = [Charge("s-1", round, peer.name, f"{round:032x}ff") for round in range(1, ROUNDS + 1)]
            assert rounds_charged(party.store.entries()) == expected

    def test_a_round_that_is_still_on_is_not_charged(self) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, round=1)
        assert rounds_charged(initiator.store.entries()) == []
        assert verify(initiator.store.entries(), initiator.store.head()).rounds_charged == 0

    def test_a_receipt_without_a_request_is_unpaid(self) -> None:
        initiator, acceptor = make_party("clinic"), make_party("hospital")
        open_with(acceptor, initiator)
        acceptor.state("receipt", 1, "ff", "clinic")
        assert_broken(acceptor.store, 1, "unpaid")

    def test_a_request_without_a_receipt_is_unearned_when_the_next_comes(self) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, round=1)
        initiator.state("request", 2, "ee", "hospital")
        assert_broken(initiator.store, 1, "unearned")

    def test_a_receipt_for_something_else_is_unpaid(self) -> None:
        initiator, acceptor = make_party("clinic"), make_party("hospital")
        play_to_request(initiator, round=1)
        initiator.keep(acceptor.signer.state("receipt", "s-1", CONTRACT, 1, "00", Head()), "received", "hospital")
        assert_broken(initiator.store, 2, "unpaid")

    def test_a_receipt_by_the_party_that_asks_is_unpaid(self) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, round=1)
        initiator.state("receipt", 1, "ff", "hospital")
        assert_broken(initiator.store, 2, "unpaid")

    def test_a_round_that_both_ask_for(self) -> None:
        initiator, acceptor = make_party("clinic"), make_party("hospital")
        play_to_request(initiator, round=1)
        initiator.keep(acceptor.signer.state("request", "s-1", CONTRACT, 1, "ff", Head()), "received", "hospital")
        assert_broken(initiator.store, 2, "asks again")


def open_with(party: Party, peer: Party) -> None:
    body = {"contract": CONTRACT, "members": [member(party), member(peer)]}
    party.store.record(Fact("opened", "s-1", 0, peer.name, body=body))


def play_to_request(initiator: Party, round: int) -> None:
    open_with(initiator, make_party("hospital"))
    initiator.state("request", round, "ff", "hospital")


def assert_broken(store: Store, index: int, what: str) -> None:
    for check in (lambda: verify(store.entries(), store.head()), lambda: rounds_charged(store.entries())):
        with pytest.raises(LedgerBroken, match=rf"^ledger entry {index} .*{what}"):
            check()


class TestCompare:
    def test_both_sides_agree(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = (list(party.store.entries()) for party in parties)
        assert common_sessions(ours, theirs) == ["s-1"]
        assert compare(ours, theirs) == compare(theirs, ours) == []

    def test_what_one_sent_and_the_other_never_had(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = (list(party.store.entries()) for party in parties)
        lost = next(entry for entry in theirs if entry.fact.kind == "loss")
        theirs.remove(lost)
        (found,) = [each for each in compare(ours, theirs) if each.what.startswith("loss")]
        assert str(found) == "session s-1, round 1: loss 1.0: ours sent 8 bytes, theirs not received"
        (found,) = [each for each in compare(theirs, ours) if each.what.startswith("loss")]
        assert (found.ours, found.theirs) == ("not received", "sent 8 bytes")

    def test_another_size(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = (list(party.store.entries()) for party in parties)
        index = next(entry.index for entry in theirs if entry.fact.kind == "loss")
        theirs[index] = replace(theirs[index], fact=replace(theirs[index].fact, size=9))
        assert [str(each) for each in compare(ours, theirs)] == [
            "session s-1, round 1: loss 1.0: ours sent 8 bytes, theirs received 9 bytes"
        ]

    def test_a_ledger_that_was_written_anew_contradicts_its_own_receipts(self, parties: tuple[Party, Party]) -> None:
        """Wholly consistent in itself, signatures and all: only what it signed before gives it away."""
        initiator, acceptor = parties
        ours = list(initiator.store.entries())
        again = make_party("hospital"), make_party("clinic")
        again[0].store.record(Fact("ended", "s-0", 0, "clinic"))
        play(again[1], again[0])
        theirs = list(again[0].store.entries())
        verify(theirs, again[0].store.head())
        differences = compare(ours, theirs)
        assert {each.what for each in differences} >= {"receipt by hospital"}
        assert all("quotes" in each.ours for each in differences if each.what == "receipt by hospital")
        assert compare(ours, list(acceptor.store.entries())) == []

    def test_a_shortened_ledger(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = (list(party.store.entries()) for party in parties)
        short, head = rechained(theirs[: place_of(theirs, kind="receipt", round=3)])
        verify(short, head)
        whats = [each.what for each in compare(ours, short)]
        assert whats.count("receipt by hospital") == 1
        assert whats.count("the round") == 1
        assert [each for each in whats if each.startswith("checkpoint")]

    def test_a_statement_that_its_signer_does_not_have(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = (list(party.store.entries()) for party in parties)
        index = place_of(theirs, kind="receipt", round=3)
        # Hidden, so that the chain goes through.
        theirs[index] = Link(index, theirs[index].hash)
        whats = {each.what: each.theirs for each in compare(ours, theirs)}
        assert whats == {"receipt by hospital": "has no such statement", "the round": "not charged"}

    def test_other_peers_are_left_out(self) -> None:
        store = MemoryStore()
        store.record(Fact("intended", "s-0", 1, "third", "sent", "loss", "1", 8))
        store.record(Fact("delivered", "s-0", 1, "third", "sent", "loss", "1", 8))
        initiator, acceptor = make_party("clinic", store), make_party("hospital")
        play(initiator, acceptor)
        # A session with several: the third's part in it is no matter of the second's.
        store.record(Fact("delivered", "s-1", 1, "third", "received", "loss", "9", 8))
        ours, theirs = list(store.entries()), list(acceptor.store.entries())
        assert common_sessions(ours, theirs) == ["s-1"]
        assert compare(ours, theirs) == compare(theirs, ours) == []

    def test_a_session_that_one_denies(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = (list(party.store.entries()) for party in parties)
        initiator = make_party("clinic")
        initiator.store.record(Fact("delivered", "s-9", 1, "hospital", "received", "loss", "1", 8))
        more = [replace(entry, index=len(ours) + entry.index) for entry in initiator.store.entries()]
        (found,) = compare([*ours, *more], theirs)
        assert str(found) == "session s-9, round 1: loss 1: ours received 8 bytes, theirs not sent"
        (found,) = compare(theirs, [*ours, *more])
        assert (found.ours, found.theirs) == ("not sent", "received 8 bytes")


class TestExport:
    def test_comes_back(self, whole: Exported) -> None:
        assert load(export(whole.lines, whole.head)) == whole

    def test_is_one_line_an_entry(self, whole: Exported) -> None:
        strange = Fact("ended", "s-1", body={"text": "a\nb\u2028c\x0bd\x85"})
        lines, head = rechained([replace(whole.lines[0], fact=strange)])
        text = export(lines, head)
        assert text.count("\n") == 2
        assert load(text) == Exported(lines, head)

    def test_shows_one_session_alone(self) -> None:
        acceptor = make_party("hospital")
        acceptor.store.record(Fact("ended", "secret", 0, "secret-party"))
        initiator = make_party("clinic")
        play(initiator, acceptor)
        acceptor.store.record(Fact("ended", "secret", 1, "secret-party"))
        text = export(acceptor.store.entries(), acceptor.store.head(), session="s-1")
        assert "secret" not in text
        theirs = load(text)
        assert isinstance(theirs.lines[0], Link)
        assert verify(theirs.lines, theirs.head).rounds_charged == ROUNDS
        assert compare(list(initiator.store.entries()), theirs.lines) == []
        hidden = [index for index, line in enumerate(theirs.lines) if isinstance(line, Link)]
        for index in hidden:
            lines = list(theirs.lines)
            lines[index] = Link(index, "1" * 64)
            # The entry after it does not follow; after the last there is the head.
            assert first_bad(lines, theirs.head) == min(index + 1, len(lines) - 1)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("", "no exported ledger|line 1"),
            ("[]", "line 1 "),
            ("{", "line 1 "),
            ('{"comity_ledger":2,"length":0,"hash":""}', "no exported ledger"),
            ('{"comity_ledger":1,"length":"0","hash":""}', "length of type int"),
            ('{"comity_ledger":1,"length":0}', "the keys"),
            ("[" * 100_000, "line 1 "),
        ],
    )
    def test_something_else_is_refused(self, line: str, message: str) -> None:
        with pytest.raises(InvalidValue, match=message):
            load(line)

    def test_an_entry_of_another_shape_is_refused(self, whole: Exported) -> None:
        head, first, *_ = export(whole.lines, whole.head).splitlines()
        for name in json.loads(first):
            for value in (True, 1.5, [], "text", 3, None, {}):
                changed = json.loads(first)
                if type(value) is type(changed[name]) or (value is None and name in {"direction", "kind"}):
                    continue
                if name in {"direction", "kind"} and isinstance(value, str):
                    continue
                changed[name] = value
                with pytest.raises(InvalidValue, match=f"line 2 .*{name} of type"):
                    load(f"{head}\n{json.dumps(changed)}\n")
            del changed[name]
            with pytest.raises(InvalidValue, match=r"line 2 .*the keys"):
                load(f"{head}\n{json.dumps(changed)}\n")

    @given(text=st.text(max_size=200))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        with pytest.raises(InvalidValue):
            load(text)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initiator's ledger in a file."""
    folder = tmp_path_factory.mktemp("whole")
    store = SqlStore(store_url(folder), durable=False)
    play(make_party("clinic", store), make_party("hospital"))
    verify(store.entries(), store.head())
    store.close()
    return folder / "comity.db"


class TestDatabaseFile:
    """By somebody with an editor for SQLite."""

    @pytest.fixture
    def edit(self, database: Path, tmp_path: Path) -> Callable[..., int]:
        """Does something to a copy of the file, and returns the entry that `verify` names then."""
        file = tmp_path / "comity.db"

        def edit(*statements: str) -> int:
            shutil.copy(database, file)
            with closing(sqlite3.connect(file)) as connection, connection:
                for statement in statements:
                    connection.execute(statement)
            with closing(SqlStore(store_url(tmp_path), read_only=True)) as store:
                return first_bad(store.entries(), store.head())

        return edit

    @pytest.mark.parametrize(
        "change",
        [
            "matter = 'other'",
            "session = session || 'x'",
            "round = round + 1",
            "round = 'text'",
            "peer = 'somebody'",
            "direction = 'inward'",
            "kind = 'update'",
            "subject = subject || '0'",
            "size = size + 1",
            "size = 1.5",
            "body = '{\"more\":1}'",
            "body = 'nothing'",
            "body = '[1]'",
            "body = '{\"a\":NaN}'",
            "body = x'ff'",
            "time = '2020-01-01T00:00:00.000000+00:00'",
            "previous = hash",
            "hash = previous",
        ],
    )
    def test_an_edited_column(self, edit: Callable[..., int], change: str) -> None:
        for index in (0, 1, 9, 20):
            assert edit(f"UPDATE ledger SET {change} WHERE position = {index}") == index

    def test_a_deleted_tail(self, edit: Callable[..., int]) -> None:
        assert edit("DELETE FROM ledger WHERE position >= 20") == 20
        assert edit("DELETE FROM ledger") == 0

    def test_deleted_in_the_middle(self, edit: Callable[..., int]) -> None:
        assert edit("DELETE FROM ledger WHERE position = 7") == 7
        moved = "UPDATE ledger SET position = position - 1 WHERE position > 7"
        assert edit("DELETE FROM ledger WHERE position = 7", moved) == 7

    def test_two_swapped(self, edit: Callable[..., int]) -> None:
        swap = [f"UPDATE ledger SET position = {new} WHERE position = {old}" for old, new in ((5, -1), (9, 5), (-1, 9))]
        assert edit(*swap) == 5

    def test_an_edited_receipt(self, edit: Callable[..., int], whole: Exported) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        for name in STATEMENT_VALUES:
            change = f"json_set(body, '$.statement.{name}', '0')"
            assert edit(f"UPDATE ledger SET body = {change} WHERE position = {index}") == index
        assert edit(f"UPDATE ledger SET body = json_set(body, '$.signature', '00') WHERE position = {index}") == index

    def test_an_edited_head(self, edit: Callable[..., int], whole: Exported) -> None:
        length = len(whole.lines)
        assert edit("UPDATE head SET length = length + 1") == length
        assert edit("UPDATE head SET length = 3") == 3
        assert edit("UPDATE head SET hash = 'f'") == length - 1

    def test_a_missing_head(self, edit: Callable[..., int]) -> None:
        with pytest.raises(LedgerBroken, match=r"head .* is missing"):
            edit("DELETE FROM head")

    def test_a_node_does_not_go_on_with_it(self, database: Path, tmp_path: Path) -> None:
        for change in ("DELETE FROM ledger WHERE position > 5", "UPDATE head SET length = 3", "DELETE FROM head"):
            shutil.copy(database, tmp_path / "comity.db")
            with closing(sqlite3.connect(tmp_path / "comity.db")) as connection, connection:
                connection.execute(change)
            with pytest.raises(LedgerBroken, match=r"does not end where it should|head .* missing"):
                SqlStore(store_url(tmp_path))
