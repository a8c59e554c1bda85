"""What statements and charges of a ledger may say: `verify` names the first that does not fit."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.ledger.charges import Charge, Ranges, charges_of, counted
from comity.ledger.ledger import Chain, ChainName, Entry, Head, Units, in_round
from comity.ledger.receipts import SignedStatement, Signer, Statement, subject_of
from comity.ledger.verification import verify
from tests.ledger.books import (
    BATCHES,
    CONTRACT,
    NAME,
    ROUNDS,
    STATEMENT_VALUES,
    Party,
    Whole,
    answer,
    assert_broken,
    bad_entry,
    first_bad,
    make_party,
    member,
    open_with,
    place_of,
    play_to_request,
    rechained,
    requests,
    restated,
)


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
