"""The ledger counts what crossed once, and its chain shows every change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.contract import EgressKind
from comity.errors import LedgerBroken
from comity.session.ledger import Crossing, Direction, Entry, MemoryLedger, bytes_by_kind, verify

crossings = st.builds(
    Crossing,
    session=st.sampled_from(["s-1", "s-2"]),
    round=st.integers(0, 2),
    direction=st.sampled_from(get_args(Direction)),
    kind=st.sampled_from(get_args(EgressKind)),
    subject=st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    size=st.integers(0, 2**40),
    peer=st.sampled_from(["clinic", "hospital"]),
)


def crossing(number: int) -> Crossing:
    return Crossing("s-1", number, "sent", "checkpoint", "abc", 10 * number, "hospital")


@pytest.fixture
def entries() -> list[Entry]:
    """A ledger of five entries."""
    ledger = MemoryLedger()
    for number in range(5):
        ledger.record(crossing(number))
    return list(ledger.entries())


@given(st.lists(crossings, max_size=12))
def test_a_ledger_holds_what_crossed_once_and_in_order(recorded: list[Crossing]) -> None:
    ledger = MemoryLedger()
    for each in recorded + recorded:
        ledger.record(each)
    # The size is not part of what makes a crossing the same: what is sent again may be cut shorter.
    firsts = {replace(each, size=0): each for each in reversed(recorded)}
    expected = sorted(firsts.values(), key=recorded.index)
    assert [entry.crossing for entry in ledger.entries()] == expected
    verify(ledger.entries())


@given(st.lists(crossings, max_size=12))
def test_bytes_are_counted_by_kind_and_direction(recorded: list[Crossing]) -> None:
    ledger = MemoryLedger()
    for each in recorded:
        ledger.record(each)
    kept = [entry.crossing for entry in ledger.entries()]
    for direction in get_args(Direction):
        totals = bytes_by_kind(ledger.entries(), direction)
        for kind in get_args(EgressKind):
            sizes = [each.size for each in kept if (each.direction, each.kind) == (direction, kind)]
            assert totals.get(kind, 0) == sum(sizes)
            assert (kind in totals) == bool(sizes)


def test_entries_of_one_session(entries: list[Entry]) -> None:
    ledger = MemoryLedger()
    ledger.record(crossing(1))
    ledger.record(replace(crossing(1), session="s-2"))
    assert [entry.crossing.session for entry in ledger.entries("s-2")] == ["s-2"]
    assert len(ledger.entries()) == 2
    assert ledger.entries("s-3") == []


CHANGES: dict[str, object] = {
    "session": "s-2",
    "round": 9,
    "direction": "received",
    "kind": "sample",
    "subject": "abd",
    "size": 11,
    "peer": "clinic",
}


@pytest.mark.parametrize("name", [field.name for field in fields(Crossing)])
def test_verify_names_an_entry_whose_crossing_was_edited(entries: list[Entry], name: str) -> None:
    entries[2] = replace(entries[2], crossing=replace(entries[2].crossing, **{name: CHANGES[name]}))
    with pytest.raises(LedgerBroken, match="ledger entry 2 was changed"):
        verify(entries)


def edited(entries: list[Entry]) -> list[Entry]:
    """An edit with its own hash put right breaks the next link."""
    draft = replace(entries[2], crossing=crossing(9))
    return [*entries[:2], replace(draft, hash=draft.computed_hash()), *entries[3:]]


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda e: [*e[:2], replace(e[2], time="2020-01-01T00:00:00+00:00"), *e[3:]], "entry 2 was changed"),
        (lambda e: [*e[:2], replace(e[2], hash="0" * 64), *e[3:]], "entry 2 was changed"),
        (edited, "entry 3 breaks the chain"),
        (lambda e: [e[0], e[2], e[1], *e[3:]], "entry 1 is out of place"),
        (lambda e: [e[0], replace(e[2], index=1), replace(e[1], index=2), *e[3:]], "entry 1 breaks the chain"),
        (lambda e: [*e[:2], *e[3:]], "entry 2 is out of place"),
        (lambda e: [*e[:2], *(replace(each, index=each.index - 1) for each in e[3:])], "entry 2 breaks the chain"),
        (lambda e: e[1:], "entry 0 is out of place"),
        (lambda e: [e[0], *e], "entry 1 is out of place"),
    ],
    ids=["time", "hash", "edit", "swap", "renumbered swap", "removal", "renumbered removal", "first", "twice"],
)
def test_verify_names_the_first_entry_that_does_not_fit(
    entries: list[Entry], tamper: Callable[[list[Entry]], list[Entry]], message: str
) -> None:
    verify(entries)
    with pytest.raises(LedgerBroken, match=f"ledger {message}"):
        verify(tamper(entries))
