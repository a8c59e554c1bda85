"""A chain of a ledger: `verify` names the first entry that something was done to."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.ledger.ledger import OWN, Chain, Entry, Fact, Head
from comity.ledger.verification import Verified, verify
from tests.ledger.books import (
    OTHER_VALUES,
    ROUNDS,
    Party,
    Whole,
    bad_entry,
    edited,
    first_bad,
    rechained,
)


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
