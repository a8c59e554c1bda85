"""What was done to a ledger, and that `verify` names the first entry that it was done to."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import InvalidValue, LedgerBroken
from comity.ledger.charges import Charge, Ranges, charges_of, counted
from comity.ledger.comparison import common_sessions, compare
from comity.ledger.exported import Exported, export, load
from comity.ledger.ledger import GENESIS, OWN, Chain, ChainName, Entry, Fact, Head, Units, in_round, loaded
from comity.ledger.receipts import SignedStatement, Signer, Statement, subject_of
from comity.ledger.verification import Verified, verify
from comity.store.memory_store import MemoryStore
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.store.store import Store

CONTRACT = "c" * 64
ROUNDS = 3


@dataclass(frozen=True)
class Party:
    """One side: its ledger and its key."""

    name: str
    store: Store
    signer: Signer

    def state(self, kind: str, about: int | Units, subject: str, peer: str) -> SignedStatement:
        units = in_round(about) if isinstance(about, int) else about
        signed = self.signer.state(kind, "s-1", CONTRACT, units, subject, self.store.head("s-1", peer))
        self.keep(signed, "sent", peer)
        return signed

    def keep(self, signed: SignedStatement, direction: str, peer: str) -> None:
        statement = signed.statement
        fact = Fact("receipt", "s-1", statement.units, peer, direction, None, statement.kind, 0, signed.to_json())
        self.store.record(fact)


def make_party(name: str, store: Store | None = None) -> Party:
    return Party(name, store or MemoryStore(), Signer.from_seed(name.encode().ljust(32), name))


def member(party: Party) -> dict[str, Any]:
    role = "learner" if party.name == "clinic" else "provider"
    return {"party": party.name, "role": role, "samples": 100, "receipt_key": party.signer.public_key}


def play(initiator: Party, acceptor: Party, rounds: int = ROUNDS, *, ends: bool = False) -> None:
    """A session as the roles record it."""
    parties = {initiator.name: initiator, acceptor.name: acceptor}

    def send(sender: Party, kind: str, subject: str, size: int, round: int) -> None:
        (receiver,) = (each for name, each in parties.items() if name != sender.name)
        what = (kind, subject, size)
        sender.store.record(Fact("intended", "s-1", in_round(round), receiver.name, "sent", *what))
        receiver.store.record(Fact("delivered", "s-1", in_round(round), sender.name, "received", *what))
        sender.store.record(Fact("delivered", "s-1", in_round(round), receiver.name, "sent", *what))

    body = {"contract": CONTRACT, "members": [member(initiator), member(acceptor)]}
    initiator.store.record(Fact("opened", "s-1", peer=acceptor.name, body=body))
    acceptor.store.record(Fact("opened", "s-1", peer=initiator.name, body=body))
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
    if ends:
        initiator.store.record(Fact("ended", "s-1", peer=acceptor.name))
        acceptor.store.record(Fact("ended", "s-1", peer=initiator.name))


@pytest.fixture(scope="module")
def parties() -> tuple[Party, Party]:
    initiator, acceptor = make_party("clinic"), make_party("hospital")
    play(initiator, acceptor)
    return initiator, acceptor


NAME = ChainName("s-1", "hospital")


@dataclass(frozen=True)
class Whole:
    """A chain of a session that is active, in which nothing is wrong."""

    lines: Sequence[Entry]
    head: Head


@pytest.fixture(scope="module")
def whole(parties: tuple[Party, Party]) -> Whole:
    """The initiator's chain."""
    (chain,) = parties[0].store.chains("s-1")
    return Whole(list(chain.entries), chain.head)


def first_bad(entries: Iterable[Entry], head: Head, **options: Any) -> int:
    """The entry of the initiator's chain that `verify` names."""
    index, chain = bad_entry([Chain(NAME, head, entries)], is_whole=False, **options)
    assert chain == str(NAME)
    return index


def bad_entry(chains: Iterable[Chain], **options: Any) -> tuple[int, str]:
    """The entry that `verify` names, and its chain."""
    with pytest.raises(LedgerBroken) as caught:
        verify(chains, **options)
    named = re.match(r"ledger entry (\d+) of (session \S+ with \S+|the node's own chain) ", str(caught.value))
    assert named is not None, str(caught.value)
    return int(named[1]), named[2]


def rechained(entries: Sequence[Entry], start: int = 0) -> tuple[list[Entry], Head]:
    """What somebody makes of a ledger who knows how its hashes are made."""
    made = list(entries[:start])
    for index, entry in enumerate(entries[start:], start=start):
        moved = replace(entry, index=index, previous=made[-1].hash if made else GENESIS)
        made.append(replace(moved, hash=moved.computed_hash()))
    return made, Head(len(made), made[-1].hash)


def place_of(entries: Iterable[Entry], *, kind: str, round: int, direction: str = "sent") -> int:
    """Where a statement stands."""
    wanted = ("receipt", kind, in_round(round), direction)
    return next(
        entry.index
        for entry in entries
        if (entry.fact.matter, entry.fact.subject, entry.fact.units, entry.fact.direction) == wanted
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
            statement.kind, statement.session, statement.contract, statement.units, statement.subject, head
        )
        statement = replace(signed.statement, party=statement.party)
    body = SignedStatement(statement, signed.signature).to_json()
    edited = [*entries[:index], replace(entry, fact=replace(entry.fact, body=body)), *entries[index + 1 :]]
    return rechained(edited, index)


class TestWhole:
    def test_both_ledgers_hold(self, parties: tuple[Party, Party]) -> None:
        for party in parties:
            entries = list(party.store.entries())
            charged = {"round": ROUNDS}
            assert verify(party.store.chains()) == Verified(1, len(entries) + 1, 1, 3 * ROUNDS, charged)

    def test_an_empty_one_holds(self) -> None:
        assert verify([Chain(OWN, Head(), [])]) == Verified(0, 0, 0, 0, {})
        assert bad_entry([Chain(OWN, Head(0, "1" * 64), [])]) == (0, str(OWN))

    def test_known_keys(self, whole: Whole, parties: tuple[Party, Party]) -> None:
        keys = {party.name: party.signer.public_key for party in parties}
        verify(parties[0].store.chains(), keys=keys)
        assert first_bad(whole.lines, whole.head, keys=keys | {"hospital": "0" * 64}) == 0


OTHER_VALUES: dict[str, Callable[[Any], Any]] = {
    "index": lambda index: index + 1,
    "time": lambda _: "2020-01-01T00:00:00.000000+00:00",
    "previous": lambda _: "1" * 64,
    "hash": lambda _: "2" * 64,
    "matter": lambda matter: "ended" if matter != "ended" else "opened",
    "session": lambda session: f"{session}x",
    "units": lambda units: replace(units, first=units.first + 1),
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
    def test_an_edited_field(self, whole: Whole, name: str) -> None:
        for index, entry in enumerate(whole.lines):
            now = getattr(entry, name) if hasattr(entry, name) else getattr(entry.fact, name)
            changed = edited(entry, name, OTHER_VALUES[name](now))
            lines = [*whole.lines[:index], changed, *whole.lines[index + 1 :]]
            assert first_bad(lines, whole.head) == index

    @given(data=st.data())
    def test_any_edits(self, whole: Whole, data: st.DataObject) -> None:
        lines = list(whole.lines)
        indices = data.draw(st.sets(st.integers(0, len(lines) - 1), min_size=1, max_size=3))
        values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just({"a": 1})
        for index in indices:
            name = data.draw(st.sampled_from(sorted(OTHER_VALUES)))
            entry = lines[index]
            now = getattr(entry, name) if hasattr(entry, name) else getattr(entry.fact, name)
            known = now.first if name == "units" else now
            # Python takes 1 for True and for 1.0; the canonical form does not.
            value = data.draw(values.filter(lambda each, known=known: repr(each) != repr(known)))
            lines[index] = edited(entry, name, replace(now, first=value) if name == "units" else value)
        assert first_bad(lines, whole.head) == min(indices)

    @given(data=st.data())
    def test_any_change_of_order(self, whole: Whole, data: st.DataObject) -> None:
        lines = data.draw(st.permutations(whole.lines))
        moved = [index for index, entry in enumerate(lines) if entry.index != index]
        if moved:
            assert first_bad(lines, whole.head) == moved[0]

    def test_a_deleted_tail(self, whole: Whole) -> None:
        for length in range(len(whole.lines)):
            assert first_bad(whole.lines[:length], whole.head) == length

    def test_a_deleted_entry(self, whole: Whole) -> None:
        for index in range(len(whole.lines)):
            lines = [*whole.lines[:index], *whole.lines[index + 1 :]]
            assert first_bad(lines, whole.head) == index
            closed = [replace(entry, index=place) for place, entry in enumerate(lines)]
            assert first_bad(closed, whole.head) == index

    def test_two_entries_swapped(self, whole: Whole) -> None:
        for index in range(len(whole.lines) - 1):
            for other in range(index + 1, len(whole.lines), 7):
                lines = list(whole.lines)
                lines[index], lines[other] = lines[other], lines[index]
                assert first_bad(lines, whole.head) == index
                renumbered = [replace(entry, index=place) for place, entry in enumerate(lines)]
                assert first_bad(renumbered, whole.head) == index

    def test_an_entry_more(self, whole: Whole) -> None:
        length = len(whole.lines)
        more, _ = rechained(
            [*whole.lines, replace(whole.lines[-1], fact=Fact("ended", "s-1", peer="hospital"))], length
        )
        assert first_bad(more, whole.head) == length

    def test_a_new_tail(self, whole: Whole) -> None:
        length = len(whole.lines)
        other, _ = rechained(
            [*whole.lines[:-1], replace(whole.lines[-1], fact=Fact("ended", "s-1", peer="hospital"))], length - 1
        )
        assert first_bad(other, whole.head) == length - 1

    @pytest.mark.parametrize("time", ["", "yesterday", "2026-01-01T00:00:00", 7, None])
    def test_no_time(self, whole: Whole, time: Any) -> None:
        lines, head = rechained([*whole.lines[:-1], replace(whole.lines[-1], time=time)])
        assert first_bad(lines, head) == len(lines) - 1

    def test_time_that_steps_back(self, whole: Whole) -> None:
        early = replace(whole.lines[-1], time="2020-01-01T00:00:00.000000+00:00")
        lines, head = rechained([*whole.lines[:-1], early])
        assert first_bad(lines, head) == len(lines) - 1

    def test_a_fact_twice(self, whole: Whole) -> None:
        again = replace(whole.lines[2], fact=replace(whole.lines[2].fact, size=5), time=whole.lines[-1].time)
        lines, head = rechained([*whole.lines, again])
        assert first_bad(lines, head) == len(whole.lines)

    def test_what_left_without_an_intention(self, whole: Whole) -> None:
        index = next(entry.index for entry in whole.lines if entry.fact.matter == "intended")
        lines, head = rechained([*whole.lines[:index], *whole.lines[index + 1 :]])
        # The delivery, in its new place.
        assert first_bad(lines, head) == index

    @pytest.mark.parametrize("changes", [{"matter": "guessed"}, {"direction": None}, {"matter": "intended"}])
    def test_no_known_matter(self, whole: Whole, changes: dict[str, Any]) -> None:
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
    "unit": "request",
    "first": 7,
    "count": 2,
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
    def test_an_edited_statement(self, whole: Whole, kind: str, name: str) -> None:
        direction = "sent" if kind == "request" else "received"
        index = place_of(whole.lines, kind=kind, round=2, direction=direction)
        assert first_bad(*restated(whole.lines, index, **{name: STATEMENT_VALUES[name]})) == index

    @pytest.mark.parametrize("name", STATEMENT_VALUES)
    @pytest.mark.parametrize("value", [None, True, 1.5, [], {}])
    def test_a_statement_of_another_type(self, whole: Whole, name: str, value: Any) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        assert first_bad(*restated(whole.lines, index, **{name: value})) == index

    @pytest.mark.parametrize("signature", ["", "00" * 64, "not hexadecimal"])
    def test_an_edited_signature(self, whole: Whole, signature: str) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        entry = whole.lines[index]
        fact = replace(entry.fact, body={**entry.fact.body, "signature": signature})
        lines = [*whole.lines[:index], replace(entry, fact=fact), *whole.lines[index + 1 :]]
        assert first_bad(*rechained(lines, index)) == index

    def test_what_it_is_about_may_be_kept_with_it(self, whole: Whole) -> None:
        index = place_of(whole.lines, kind="receipt", round=ROUNDS, direction="received")
        content: dict[str, Any] = {"round": ROUNDS, "contribution": 0.1 + 0.2, "kept": 7}
        hospital = Signer.from_seed(b"hospital".ljust(32), "hospital")
        lines, _ = restated(whole.lines, index, hospital, kind="statement", subject=subject_of(content).hex())

        def keeping(value: Any) -> tuple[list[Entry], Head]:
            fact = replace(lines[index].fact, subject="statement", body=lines[index].fact.body | {"content": value})
            return rechained([*lines[:index], replace(lines[index], fact=fact)], index)

        lines_and_head = keeping(content)
        verify([Chain(NAME, lines_and_head[1], lines_and_head[0])], is_whole=False)
        for changed in (content | {"contribution": 0.4}, {}, {**content, "paid": 1}, "all of it"):
            assert first_bad(*keeping(changed)) == index

    @pytest.mark.parametrize("body", [{}, {"statement": 1, "signature": ""}, {"statement": {}, "signature": ""}])
    def test_no_statement(self, whole: Whole, body: dict[str, Any]) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        entry = whole.lines[index]
        lines = [*whole.lines[:index], replace(entry, fact=replace(entry.fact, body=body)), *whole.lines[index + 1 :]]
        assert first_bad(*rechained(lines, index)) == index

    def test_forged_with_another_key(self, whole: Whole) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        forger = Signer.from_seed(b"f" * 32, "hospital")
        assert first_bad(*restated(whole.lines, index, forger)) == index

    def test_forged_with_ones_own_key(self, whole: Whole, parties: tuple[Party, Party]) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        assert first_bad(*restated(whole.lines, index, parties[0].signer)) == index

    def test_forged_with_a_key_of_ones_own_in_the_opening(self, whole: Whole, parties: tuple[Party, Party]) -> None:
        forger = make_party("hospital")
        forger = replace(forger, signer=Signer.from_seed(b"f" * 32, "hospital"))
        body = {"contract": CONTRACT, "members": [member(parties[0]), member(forger)]}
        opening = replace(whole.lines[0], fact=replace(whole.lines[0].fact, body=body))
        lines, head = rechained([opening, *whole.lines[1:]])
        # Own statements quote the old chain, whatever the other party's key.
        assert first_bad(lines, head) == place_of(whole.lines, kind="request", round=1)
        keys = {"hospital": parties[1].signer.public_key}
        assert first_bad(lines, head, keys=keys) == 0

    def test_replayed_in_another_round(self, whole: Whole) -> None:
        source = place_of(whole.lines, kind="receipt", round=1, direction="received")
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        entry = whole.lines[index]
        fact = replace(entry.fact, body=whole.lines[source].fact.body)
        lines = [*whole.lines[:index], replace(entry, fact=fact), *whole.lines[index + 1 :]]
        assert first_bad(*rechained(lines, index)) == index

    def test_replayed_in_the_same_round(self, whole: Whole) -> None:
        index = place_of(whole.lines, kind="receipt", round=3, direction="received")
        entry = whole.lines[index]
        # The same once more, as if it were about something else.
        again = replace(entry, fact=replace(entry.fact, subject="receipt again"), time=whole.lines[-1].time)
        assert first_bad(*rechained([*whole.lines, again])) == len(whole.lines)

    def test_replayed_in_another_session(self, whole: Whole) -> None:
        opening = replace(whole.lines[0], fact=replace(whole.lines[0].fact, session="s-2"))
        request = whole.lines[place_of(whole.lines, kind="request", round=1)]
        replayed = replace(request, fact=replace(request.fact, session="s-2"))
        lines, head = rechained([opening, replayed])
        chains = [Chain(NAME, whole.head, whole.lines), Chain(ChainName("s-2", "hospital"), head, lines)]
        assert bad_entry(chains, is_whole=False) == (1, "session s-2 with hospital")

    def test_replayed_with_another_peer(self, whole: Whole, parties: tuple[Party, Party]) -> None:
        """What one has signed for one peer is no statement to another."""
        body = {"contract": CONTRACT, "members": [member(parties[0]), member(make_party("third"))]}
        request = whole.lines[place_of(whole.lines, kind="request", round=1)]
        facts = [replace(whole.lines[0].fact, body=body), request.fact]
        lines, head = rechained([replace(request, fact=replace(fact, peer="third")) for fact in facts])
        chains = [Chain(NAME, whole.head, whole.lines), Chain(ChainName("s-1", "third"), head, lines)]
        assert bad_entry(chains, is_whole=False) == (1, "session s-1 with third")

    @pytest.mark.parametrize("changes", [{"session": "s-2"}, {"peer": "third"}])
    def test_of_another_chain(self, whole: Whole, changes: dict[str, Any]) -> None:
        for index in range(len(whole.lines)):
            entry = whole.lines[index]
            moved = replace(entry, fact=replace(entry.fact, **changes))
            assert first_bad(*rechained([*whole.lines[:index], moved, *whole.lines[index + 1 :]], index)) == index

    def test_of_a_session_that_was_not_opened(self, whole: Whole) -> None:
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
    def test_opened_again_otherwise(self, whole: Whole, body: dict[str, Any]) -> None:
        opening = replace(whole.lines[0].fact, peer="third", body=body)
        lines, head = rechained([replace(whole.lines[0], fact=opening)])
        chains = [Chain(NAME, whole.head, whole.lines), Chain(ChainName("s-1", "third"), head, lines)]
        assert bad_entry(chains, is_whole=False) == (0, "session s-1 with third")

    def test_quotes_what_is_not_written_yet(self, whole: Whole, parties: tuple[Party, Party]) -> None:
        index = place_of(whole.lines, kind="acknowledgement", round=ROUNDS)
        for length in (-1, index + 1, 10**9):
            changed = restated(whole.lines, index, parties[0].signer, head_length=length)
            assert first_bad(*changed) == index

    def test_quotes_another_chain_than_its_own(self, whole: Whole, parties: tuple[Party, Party]) -> None:
        index = place_of(whole.lines, kind="acknowledgement", round=ROUNDS)
        changed = restated(whole.lines, index, parties[0].signer, head_hash="f" * 64)
        assert first_bad(*changed) == index

    @pytest.mark.parametrize("at", range(1, 5))
    def test_an_edit_before_an_own_statement_contradicts_it(self, whole: Whole, at: int) -> None:
        entry = whole.lines[at]
        lines = [*whole.lines[:at], replace(entry, fact=replace(entry.fact, size=5)), *whole.lines[at + 1 :]]
        assert first_bad(*rechained(lines, at)) == place_of(whole.lines, kind="request", round=1)

    @pytest.mark.parametrize("quoted", [{"head_length": 2}, {"head_hash": "f" * 64}])
    def test_a_peer_whose_ledger_shrank_or_changed(
        self, whole: Whole, parties: tuple[Party, Party], quoted: dict[str, Any]
    ) -> None:
        first = place_of(whole.lines, kind="receipt", round=2, direction="received")
        index = place_of(whole.lines, kind="receipt", round=3, direction="received")
        before = SignedStatement.from_json(whole.lines[first].fact.body).statement
        same = {"head_length": before.head_length, "head_hash": before.head_hash}
        changed = restated(whole.lines, index, parties[1].signer, **(same | quoted))
        assert first_bad(*changed) == index


class TestCharges:
    def test_rounds(self, parties: tuple[Party, Party]) -> None:
        for party, peer in (parties, reversed(parties)):
            expected = [Charge("s-1", in_round(round), peer.name, f"{round:032x}ff") for round in range(1, ROUNDS + 1)]
            assert charges_of(party.store.entries()) == expected
            assert counted(expected) == {"round": ROUNDS}

    def test_a_round_without_a_receipt_is_not_charged(self) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, 1)
        assert charges_of(initiator.store.entries()) == []
        assert verify(initiator.store.chains()).charged == {}

    def test_a_receipt_without_a_request_is_unpaid(self) -> None:
        initiator, acceptor = make_party("clinic"), make_party("hospital")
        open_with(acceptor, initiator)
        acceptor.state("receipt", 1, "ff", "clinic")
        assert_broken(acceptor.store, 1, "unpaid")

    def test_a_request_without_a_receipt_is_unearned_when_the_next_comes(self) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, 1)
        initiator.state("request", 2, "ee", "hospital")
        assert_broken(initiator.store, 1, "unearned")

    def test_a_receipt_for_something_else_is_unpaid(self) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, 1)
        answer(initiator, "receipt", in_round(1), "00")
        assert_broken(initiator.store, 2, "unpaid")

    def test_a_receipt_by_the_party_that_asks_is_unpaid(self) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, 1)
        initiator.state("receipt", 1, "ff", "hospital")
        assert_broken(initiator.store, 2, "unpaid")

    def test_a_round_that_both_ask_for(self) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, 1)
        answer(initiator, "request", in_round(1), "ff")
        assert_broken(initiator.store, 2, "asks again")


BATCHES = [Units("request", first, 100) for first in (1, 101, 201)]


def requests(first: int, count: int) -> Units:
    return Units("request", first, count)


class TestUnits:
    """Where units are small a statement is about many."""

    def test_in_words(self) -> None:
        assert [str(each) for each in (in_round(3), requests(101, 100), Units())] == [
            "round 3",
            "requests 101 to 200",
            "the session",
        ]

    @given(
        st.lists(st.tuples(st.integers(1, 30), st.integers(1, 8)), max_size=12),
        st.tuples(st.integers(1, 30), st.integers(1, 8)),
    )
    def test_ranges_find_what_overlaps(self, added: list[tuple[int, int]], wanted: tuple[int, int]) -> None:
        ranges, kept = Ranges(), []
        for first, count in added:
            if ranges.overlapping(requests(first, count)) is None:
                ranges.add(requests(first, count))
                kept.append(set(range(first, first + count)))
        assert sum(map(len, kept)) == len(set().union(*kept))
        found = ranges.overlapping(requests(*wanted))
        among = set(range(wanted[0], sum(wanted)))
        assert (found is not None) == any(among & each for each in kept)

    def test_batches_are_charged(self) -> None:
        initiator = make_party("clinic")
        open_with(initiator, make_party("hospital"))
        for units in BATCHES:
            initiator.state("request", units, f"{units.first:x}", "hospital")
            answer(initiator, "receipt", units, f"{units.first:x}")
        # Another unit is another account.
        initiator.state("request", 1, "ff", "hospital")
        answer(initiator, "receipt", in_round(1), "ff")
        assert verify(initiator.store.chains()).charged == {"request": 300, "round": 1}
        assert [each.units for each in charges_of(initiator.store.entries())] == [*BATCHES, in_round(1)]

    def test_what_is_withdrawn_is_not_unearned(self) -> None:
        initiator = make_party("clinic")
        open_with(initiator, make_party("hospital"))
        initiator.state("request", BATCHES[0], "ff", "hospital")
        initiator.state("withdrawal", BATCHES[0], "ee", "hospital")
        initiator.state("request", BATCHES[1], "ff", "hospital")
        answer(initiator, "receipt", BATCHES[1], "ff")
        assert verify(initiator.store.chains()).charged == {"request": 100}

    @pytest.mark.parametrize(
        ("kind", "units", "what"),
        [
            ("receipt", BATCHES[0], "withdrawn"),
            ("withdrawal", BATCHES[0], "the party that asked"),
            ("withdrawal", requests(50, 60), "withdraws"),
        ],
    )
    def test_a_withdrawal_is_the_end_of_it(self, kind: str, units: Units, what: str) -> None:
        initiator = make_party("clinic")
        open_with(initiator, make_party("hospital"))
        initiator.state("request", BATCHES[0], "ff", "hospital")
        if kind == "receipt":
            initiator.state("withdrawal", BATCHES[0], "ee", "hospital")
        at = len(list(initiator.store.entries()))
        answer(initiator, kind, units, "ff")
        assert_broken(initiator.store, at, what)

    def test_what_was_withdrawn_is_not_asked_for_again(self) -> None:
        initiator = make_party("clinic")
        open_with(initiator, make_party("hospital"))
        initiator.state("withdrawal", BATCHES[0], "ee", "hospital")
        initiator.state("request", BATCHES[0], "ff", "hospital")
        assert_broken(initiator.store, 2, "asks again")

    @pytest.mark.parametrize("units", [requests(100, 1), requests(50, 60), requests(1, 100), requests(1, 1)])
    def test_batches_do_not_overlap(self, units: Units) -> None:
        initiator = make_party("clinic")
        open_with(initiator, make_party("hospital"))
        initiator.state("request", BATCHES[0], "ff", "hospital")
        answer(initiator, "receipt", BATCHES[0], "ff")
        initiator.state("request", units, "ee", "hospital")
        if units != BATCHES[0]:
            assert_broken(initiator.store, 3, "asks again")

    def test_a_receipt_for_another_batch_is_unpaid(self) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, BATCHES[0])
        answer(initiator, "receipt", requests(1, 99), "ff")
        assert_broken(initiator.store, 2, "requests 1 to 99 unpaid: .*received requests 1 to 100")

    def test_a_batch_without_a_receipt_is_unearned_when_the_next_comes(self) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, BATCHES[0])
        initiator.state("request", BATCHES[1], "ee", "hospital")
        assert_broken(initiator.store, 1, "leaves requests 1 to 100 unearned: expected a receipt before requests 101")

    def test_nothing_is_stated_twice(self) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, BATCHES[0])
        answer(initiator, "receipt", BATCHES[0], "ff")
        initiator.state("acknowledgement", BATCHES[0], "ff", "hospital")
        initiator.state("acknowledgement", requests(100, 2), "ff", "hospital")
        assert_broken(initiator.store, 4, "states something of requests 100 to 101")

    @pytest.mark.parametrize(
        "units", [requests(0, 1), requests(1, 0), requests(1, -1), requests(-1, 3), Units("", 1, 1)]
    )
    def test_of_nothing(self, units: Units) -> None:
        initiator = make_party("clinic")
        play_to_request(initiator, units)
        assert_broken(initiator.store, 1, "states something of no units")


def open_with(party: Party, peer: Party) -> None:
    body = {"contract": CONTRACT, "members": [member(party), member(peer)]}
    party.store.record(Fact("opened", "s-1", peer=peer.name, body=body))


def play_to_request(initiator: Party, about: int | Units) -> None:
    open_with(initiator, make_party("hospital"))
    initiator.state("request", about, "ff", "hospital")


def answer(initiator: Party, kind: str, units: Units, subject: str) -> None:
    """The hospital states something to the clinic."""
    acceptor = make_party("hospital")
    initiator.keep(acceptor.signer.state(kind, "s-1", CONTRACT, units, subject, Head()), "received", "hospital")


def assert_broken(store: Store, index: int, what: str) -> None:
    for check in (lambda: verify(store.chains()), lambda: charges_of(store.entries())):
        with pytest.raises(LedgerBroken, match=rf"^ledger entry {index} of .*{what}"):
            check()


class TestNodesOwnChain:
    """What says which chains there are."""

    @pytest.fixture
    def chains(self) -> list[Chain]:
        """A ledger with one session that is over and one that is active."""
        initiator, acceptor = make_party("clinic"), make_party("hospital")
        play(initiator, acceptor, ends=True)
        initiator.store.record(Fact("intended", "s-2", in_round(1), "third", "sent", "loss", "1", 8))
        chains = loaded(initiator.store.chains())
        verify(chains)
        return chains

    def test_says_which_chains_there_are_and_how_they_ended(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        assert [(each.fact.matter, each.fact.session, each.fact.peer) for each in own.entries] == [
            ("chain-opened", *ended.name),
            ("chain-ended", *ended.name),
            ("chain-opened", *active.name),
        ]
        assert list(own.entries)[1].fact.body == {"length": ended.head.length, "hash": ended.head.hash}

    def test_a_removed_session(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        for left, gone in (([own, active], ended), ([own, ended], active)):
            with pytest.raises(LedgerBroken, match=f"chain of {gone.name} is missing"):
                verify(left)

    def test_a_removed_session_and_what_was_said_of_it(self, chains: list[Chain]) -> None:
        own, ended, _ = chains
        assert bad_entry([replace(own, entries=list(own.entries)[:2]), ended])[0] == 2
        # Chained anew, it is as the node says that it is; only the peer's ledger tells.
        entries, head = rechained(list(own.entries)[:2])
        verify([Chain(OWN, head, entries), ended])

    def test_without_it(self, chains: list[Chain]) -> None:
        _, ended, active = chains
        with pytest.raises(LedgerBroken, match="the node's own chain is missing"):
            verify([ended, active])
        verify([ended, active], is_whole=False)
        with pytest.raises(LedgerBroken, match="the node's own chain is missing"):
            verify([])

    def test_out_of_place(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        with pytest.raises(LedgerBroken, match="does not stand first"):
            verify([ended, own, active])
        with pytest.raises(LedgerBroken, match="stands there twice"):
            verify([own, ended, active, active])

    def test_a_chain_that_was_never_opened(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        entries, head = rechained(list(own.entries)[:2])
        with pytest.raises(LedgerBroken, match=f"chain of {active.name} was never opened"):
            verify([Chain(OWN, head, entries), ended, active])

    def test_an_empty_chain(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        with pytest.raises(LedgerBroken, match=f"chain of {active.name} is empty"):
            verify([own, ended, replace(active, head=Head(), entries=[])])

    def test_a_missing_tail_with_a_head_that_fits(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        for length in range(1, ended.head.length):
            entries = list(ended.entries)[:length]
            short = Chain(ended.name, Head(length, entries[-1].hash), entries)
            with pytest.raises(LedgerBroken, match="does not end where the node's own chain says"):
                verify([own, short, active])

    @pytest.mark.parametrize("body", [{"length": 3}, {"hash": "f" * 64}, {"length": "all"}, {"hash": None}])
    def test_a_forged_final_head(self, chains: list[Chain], body: dict[str, Any]) -> None:
        own, ended, active = chains
        entries = list(own.entries)
        said = entries[1].fact
        entries[1] = replace(entries[1], fact=replace(said, body={**said.body, **body}))
        entries, head = rechained(entries)
        with pytest.raises(LedgerBroken, match=f"chain of {ended.name} does not end where"):
            verify([Chain(OWN, head, entries), ended, active])

    def test_a_final_head_of_a_session_that_is_active(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        head = {"length": active.head.length, "hash": active.head.hash}
        final = Fact("chain-ended", active.name.session, peer=active.name.peer, body=head)
        entries, head = rechained([*own.entries, replace(list(own.entries)[-1], fact=final)])
        with pytest.raises(LedgerBroken, match=f"chain of {active.name} does not end where"):
            verify([Chain(OWN, head, entries), ended, active])

    def test_a_missing_final_head(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        entries = list(own.entries)
        entries, head = rechained([entries[0], entries[2]])
        with pytest.raises(LedgerBroken, match=f"chain of {ended.name} ended: expected a final head"):
            verify([Chain(OWN, head, entries), ended, active])

    def test_what_comes_after_the_end(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        late = replace(list(ended.entries)[-1], fact=Fact("privacy", "s-1", peer="hospital"))
        entries, head = rechained([*ended.entries, late])
        broken = bad_entry([own, Chain(ended.name, head, entries), active])
        assert broken == (ended.head.length, str(ended.name))

    @pytest.mark.parametrize(
        "fact",
        [
            Fact("chain-opened", "", peer=""),
            Fact("chain-ended", "s-9", peer="hospital", body={"length": 1, "hash": "f" * 64}),
            Fact("intended", "s-1", in_round(1), "hospital", "sent", "loss", "1", 8),
        ],
    )
    def test_what_does_not_belong_there(self, chains: list[Chain], fact: Fact) -> None:
        own, *others = chains
        entries, head = rechained([*own.entries, replace(list(own.entries)[-1], fact=fact)])
        assert bad_entry([Chain(OWN, head, entries), *others]) == (3, str(OWN))

    def test_a_statement_does_not_change_with_what_is_done_with_others(self) -> None:
        moment = datetime(2026, 1, 1, tzinfo=UTC)

        def receipt(*others: Fact) -> SignedStatement:
            party = make_party("hospital", MemoryStore(clock=lambda: moment))
            open_with(party, make_party("clinic"))
            for fact in others:
                party.store.record(fact)
            party.store.record(Fact("delivered", "s-1", in_round(1), "clinic", "received", "loss", "1", 8))
            return party.state("receipt", 1, "ff", "clinic")

        more = [Fact("intended", f"s-{n}", in_round(1), "third", "sent", "loss", "1", 8) for n in range(1, 5)]
        assert receipt() == receipt(*more) == receipt(*more, Fact("ended", "s-2", peer="third"))


def book(party: Party) -> list[Chain]:
    """A party's ledger."""
    return loaded(party.store.chains())


def changed(chains: list[Chain], change: Callable[[list[Entry]], object]) -> list[Chain]:
    """A ledger with something done to the entries of its last chain, and nothing else."""
    *others, last = chains
    entries = list(last.entries)
    change(entries)
    return [*others, replace(last, entries=entries)]


class TestCompare:
    def test_both_sides_agree(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = map(book, parties)
        assert common_sessions(ours, theirs) == ["s-1"]
        assert compare(ours, theirs) == compare(theirs, ours) == []

    def test_what_one_sent_and_the_other_never_had(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = map(book, parties)
        theirs = changed(
            theirs, lambda entries: entries.remove(next(each for each in entries if each.fact.kind == "loss"))
        )
        (found,) = [each for each in compare(ours, theirs) if each.what.startswith("loss")]
        assert str(found) == "session s-1, round 1: loss 1.0: ours sent 8 bytes, theirs not received"
        (found,) = [each for each in compare(theirs, ours) if each.what.startswith("loss")]
        assert (found.ours, found.theirs) == ("not received", "sent 8 bytes")

    def test_another_size(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = map(book, parties)

        def enlarge(entries: list[Entry]) -> None:
            index = next(entry.index for entry in entries if entry.fact.kind == "loss")
            entries[index] = replace(entries[index], fact=replace(entries[index].fact, size=9))

        assert [str(each) for each in compare(ours, changed(theirs, enlarge))] == [
            "session s-1, round 1: loss 1.0: ours sent 8 bytes, theirs received 9 bytes"
        ]

    def test_a_ledger_that_was_written_anew_contradicts_its_own_receipts(self, parties: tuple[Party, Party]) -> None:
        """Wholly consistent in itself, signatures and all: only what it signed before gives it away."""
        initiator, acceptor = parties
        ours = book(initiator)
        again = make_party("hospital"), make_party("clinic")
        again[0].store.record(Fact("privacy", "s-1", peer="clinic"))
        play(again[1], again[0])
        theirs = book(again[0])
        verify(theirs)
        differences = compare(ours, theirs)
        assert {each.what for each in differences} >= {"receipt by hospital"}
        assert all("quotes" in each.ours for each in differences if each.what == "receipt by hospital")
        assert compare(ours, book(acceptor)) == []

    def test_a_removed_session_shows_to_the_peer(self, parties: tuple[Party, Party]) -> None:
        """Removed with all that the node's own chain says of it, so that what is left holds."""
        ours, theirs = map(book, parties)
        rest = make_party("hospital")
        rest.store.record(Fact("delivered", "s-9", in_round(1), "clinic", "received", "loss", "1", 8))
        assert {each.ours for each in compare(ours, book(rest), "s-1") if each.what == "the charge"} != set()
        assert compare(ours, theirs, "s-1") == []

    def test_a_shortened_ledger(self, parties: tuple[Party, Party]) -> None:
        ours, (own, chain) = map(book, parties)
        entries = list(chain.entries)
        short, head = rechained(entries[: place_of(entries, kind="receipt", round=3)])
        shortened = [own, Chain(chain.name, head, short)]
        verify(shortened)
        whats = [each.what for each in compare(ours, shortened)]
        assert whats.count("receipt by hospital") == 1
        assert whats.count("the charge") == 1
        assert [each for each in whats if each.startswith("checkpoint")]

    def test_a_statement_that_its_signer_does_not_have(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = map(book, parties)

        def hide(entries: list[Entry]) -> None:
            index = place_of(entries, kind="receipt", round=3)
            # With its hash, so that the chain goes through.
            entries[index] = replace(entries[index], fact=Fact("privacy", "s-1", peer="clinic"))

        whats = {each.what: each.theirs for each in compare(ours, changed(theirs, hide))}
        assert whats == {"receipt by hospital": "has no such statement", "the charge": "not charged"}

    def test_other_peers_are_left_out(self) -> None:
        store = MemoryStore()
        store.record(Fact("intended", "s-0", in_round(1), "third", "sent", "loss", "1", 8))
        store.record(Fact("delivered", "s-0", in_round(1), "third", "sent", "loss", "1", 8))
        initiator, acceptor = make_party("clinic", store), make_party("hospital")
        play(initiator, acceptor)
        # A session with several: the third's part in it is no matter of the second's.
        store.record(Fact("delivered", "s-1", in_round(1), "third", "received", "loss", "9", 8))
        ours, theirs = book(initiator), book(acceptor)
        assert common_sessions(ours, theirs) == ["s-1"]
        assert compare(ours, theirs) == compare(theirs, ours) == []

    def test_batches(self) -> None:
        initiator, acceptor = make_party("clinic"), make_party("hospital")
        open_with(initiator, acceptor)
        open_with(acceptor, initiator)
        acceptor.keep(initiator.state("request", BATCHES[1], "ff", "hospital"), "received", "clinic")
        initiator.keep(acceptor.state("receipt", BATCHES[1], "ff", "clinic"), "received", "hospital")
        ours, theirs = book(initiator), book(acceptor)
        assert compare(ours, theirs) == []
        differences = compare(ours, changed(theirs, lambda entries: entries.pop()))
        assert "session s-1, requests 101 to 200: the charge: ours charged for ff…, theirs not charged" in map(
            str, differences
        )

    def test_a_session_that_one_denies(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = map(book, parties)
        initiator = make_party("clinic")
        initiator.store.record(Fact("delivered", "s-9", in_round(1), "hospital", "received", "loss", "1", 8))
        more = [*ours, *initiator.store.chains("s-9")]
        (found,) = compare(more, theirs)
        assert str(found) == "session s-9, round 1: loss 1: ours received 8 bytes, theirs not sent"
        (found,) = compare(theirs, more)
        assert (found.ours, found.theirs) == ("not sent", "received 8 bytes")
        # One that shows only some denies nothing.
        assert compare(more, theirs[1:]) == []


class TestExport:
    def test_comes_back(self, parties: tuple[Party, Party]) -> None:
        for is_whole in (True, False):
            chains = book(parties[0])
            assert load(export(chains, is_whole=is_whole)) == Exported(chains, is_whole)

    def test_is_one_line_an_entry(self, whole: Whole) -> None:
        strange = Fact("ended", "s-1", peer="hospital", body={"text": "a\nb\u2028c\x0bd\x85"})
        lines, head = rechained([replace(whole.lines[0], fact=strange)])
        text = export([Chain(NAME, head, lines)], is_whole=False)
        assert text.count("\n") == 3
        assert load(text) == Exported([Chain(NAME, head, lines)], is_whole=False)

    def test_shows_one_session_alone(self) -> None:
        acceptor = make_party("hospital")
        acceptor.store.record(Fact("ended", "secret", peer="secret-party"))
        initiator = make_party("clinic")
        play(initiator, acceptor)
        text = export(acceptor.store.chains("s-1"), is_whole=False)
        assert "secret" not in text
        theirs = load(text)
        assert verify(theirs.chains, is_whole=theirs.is_whole).charged == {"round": ROUNDS}
        assert compare(book(initiator), theirs.chains) == []

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("", "no exported ledger|line 1"),
            ("[]", "line 1 "),
            ("{", "line 1 "),
            ('{"comity_ledger":1,"length":0,"hash":""}', "no exported ledger"),
            ('{"comity_ledger":2,"whole":1}', "whole of type bool"),
            ('{"comity_ledger":2}', "the keys"),
            ('{"comity_ledger":2,"whole":true}\n{"index":0}', "line 2 .*a chain's name and head"),
            ('{"comity_ledger":2,"whole":true}\n{"chain":{},"length":0,"hash":""}', "line 2 .*the keys session, peer"),
            ('{"comity_ledger":2,"whole":true}\n{"chain":[],"length":0,"hash":""}', "line 2 .*chain of type dict"),
            (
                '{"comity_ledger":2,"whole":true}\n{"chain":{"session":"","peer":""},"length":"0","hash":""}',
                "line 2 .*length of type int",
            ),
            ("[" * 100_000, "line 1 "),
        ],
    )
    def test_something_else_is_refused(self, line: str, message: str) -> None:
        with pytest.raises(InvalidValue, match=message):
            load(line)

    def test_an_entry_of_another_shape_is_refused(self, whole: Whole) -> None:
        file, head, first, *_ = export([Chain(NAME, whole.head, whole.lines)], is_whole=False).splitlines()
        for name in json.loads(first):
            for value in (True, 1.5, [], "text", 3, None, {}):
                changed = json.loads(first)
                if type(value) is type(changed[name]) or (value is None and name in {"direction", "kind"}):
                    continue
                if name in {"direction", "kind"} and isinstance(value, str):
                    continue
                changed[name] = value
                with pytest.raises(InvalidValue, match=f"line 3 .*{name} of type"):
                    load(f"{file}\n{head}\n{json.dumps(changed)}\n")
            del changed[name]
            with pytest.raises(InvalidValue, match=r"line 3 .*the keys"):
                load(f"{file}\n{head}\n{json.dumps(changed)}\n")

    @pytest.mark.parametrize("number", [-1, 2**63, 9 * 10**4299])
    def test_a_number_that_no_ledger_has_is_refused(self, whole: Whole, number: int) -> None:
        file, head, first, *_ = export([Chain(NAME, whole.head, whole.lines)], is_whole=False).splitlines()
        for name in ("index", "first", "count", "size"):
            changed = json.dumps(json.loads(first) | {name: number})
            with pytest.raises(InvalidValue, match=f"line 3 .*{name} from 0 to"):
                load(f"{file}\n{head}\n{changed}\n")

    @given(text=st.text(max_size=200))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        with pytest.raises(InvalidValue):
            load(text)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initiator's ledger in a file."""
    folder = tmp_path_factory.mktemp("whole")
    store = SqlStore(store_url(folder), durable=False)
    play(make_party("clinic", store), make_party("hospital"), ends=True)
    verify(store.chains())
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
                index, chain = bad_entry(store.chains())
                assert chain == str(NAME)
                return index

        return edit

    @pytest.mark.parametrize(
        "change",
        [
            "matter = 'other'",
            "session = session || 'x'",
            "unit = 'request'",
            "first = first + 1",
            "first = 'text'",
            "count = count + 1",
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
            assert edit(f"UPDATE ledger SET {change} WHERE chain = 1 AND position = {index}") == index

    def test_a_deleted_tail(self, edit: Callable[..., int]) -> None:
        assert edit("DELETE FROM ledger WHERE chain = 1 AND position >= 20") == 20
        assert edit("DELETE FROM ledger WHERE chain = 1") == 0

    def test_deleted_in_the_middle(self, edit: Callable[..., int]) -> None:
        assert edit("DELETE FROM ledger WHERE chain = 1 AND position = 7") == 7
        moved = "UPDATE ledger SET position = position - 1 WHERE chain = 1 AND position > 7"
        assert edit("DELETE FROM ledger WHERE chain = 1 AND position = 7", moved) == 7

    def test_two_swapped(self, edit: Callable[..., int]) -> None:
        swap = [
            f"UPDATE ledger SET position = {new} WHERE chain = 1 AND position = {old}"
            for old, new in ((5, -1), (9, 5), (-1, 9))
        ]
        assert edit(*swap) == 5

    def test_an_edited_receipt(self, edit: Callable[..., int], whole: Whole) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        for name in STATEMENT_VALUES:
            change = f"json_set(body, '$.statement.{name}', '0')"
            assert edit(f"UPDATE ledger SET body = {change} WHERE chain = 1 AND position = {index}") == index
        assert (
            edit(f"UPDATE ledger SET body = json_set(body, '$.signature', '00') WHERE chain = 1 AND position = {index}")
            == index
        )

    def test_an_edited_head(self, edit: Callable[..., int], whole: Whole) -> None:
        # It has an end, too.
        length = len(whole.lines) + 1
        assert edit("UPDATE chains SET length = length + 1 WHERE chain = 1") == length
        assert edit("UPDATE chains SET length = 3 WHERE chain = 1") == 3
        assert edit("UPDATE chains SET hash = 'f' WHERE chain = 1") == length - 1

    @pytest.mark.parametrize(
        "changes",
        [
            ["DELETE FROM chains WHERE chain = 1"],
            ["DELETE FROM chains WHERE chain = 1", "DELETE FROM ledger WHERE chain = 1"],
        ],
    )
    def test_a_removed_session(self, edit: Callable[..., int], changes: list[str], tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="chain of session s-1 with hospital is missing"):
            edit(*changes)
        # A node does not go on with it either.
        with pytest.raises(LedgerBroken, match="chain of session s-1 with hospital is missing"):
            SqlStore(store_url(tmp_path))

    def test_a_missing_own_chain(self, edit: Callable[..., int]) -> None:
        with pytest.raises(LedgerBroken, match=r"head .* is missing"):
            edit("DELETE FROM chains WHERE chain = 0")

    def test_a_node_does_not_go_on_with_it(self, database: Path, tmp_path: Path) -> None:
        for change in (
            "DELETE FROM ledger WHERE chain = 1 AND position > 5",
            "UPDATE chains SET length = 3 WHERE chain = 1",
            "UPDATE chains SET length = 0 WHERE chain = 1",
            "UPDATE chains SET hash = 'f' WHERE chain = 0",
            "DELETE FROM chains WHERE chain = 0",
            "DELETE FROM chains",
        ):
            shutil.copy(database, tmp_path / "comity.db")
            with closing(sqlite3.connect(tmp_path / "comity.db")) as connection, connection:
                connection.execute(change)
            with pytest.raises(LedgerBroken, match=r"does not end where it should|head .* missing"):
                SqlStore(store_url(tmp_path))
