"""A round in which nothing was learned says so, once, and why; a session may end there."""

from __future__ import annotations

import pytest

from comity.contract import Json
from comity.experiments import demo_script
from comity.node.sessions.result import SessionResult
from comity.node.sessions.script import parse_script
from comity.session.events import Event
from comity.simulation.in_process import simulate


def stalled(changes: dict[str, str], more: str = "") -> tuple[SessionResult, list[Event]]:
    text = demo_script("assisted_learning", 0)
    for old, new in {"rounds = 10": "rounds = 3", **changes}.items():
        assert old in text
        text = text.replace(old, new)
    events: list[Event] = []
    result, _ = simulate(parse_script(text.replace("[session.terms]\n", f"{more}\n[session.terms]\n")), events.append)
    return result, events


def of_kind(events: list[Event], kind: str) -> list[tuple[int, str]]:
    return [(event.round, str(event.fields["what"])) for event in events if event.kind == kind]


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        # Steps that are far too long: each training ends where its own samples say that it is worse.
        ("3000.0", "phases are too short: learner and provider ended training with a greater loss than it began with"),
        ("0.003", None),
    ],
)
def test_a_stall_is_told_once_and_says_what_is_true(rate: str, says: str | None) -> None:
    _, events = stalled({"learning_rate = 0.003": f"learning_rate = {rate}"})
    told = of_kind(events, "stalled")
    if says is None:
        assert told == []
    else:
        ((round, what),) = told
        assert round == 1
        assert says in what


def test_a_session_ends_where_nothing_is_gained_and_charges_no_more() -> None:
    result, events = stalled(
        {"learning_rate = 0.003": "learning_rate = 1e-30\nstop_when_stalled = 2"}, "[session.price]\namount = 2.5"
    )
    assert of_kind(events, "ended-early") == [
        (2, "nothing was gained in 2 rounds in a row: the session ends after 2 of 3 rounds")
    ]
    assert (result.rounds, result.rounds_finished) == (3, 2)
    owed: Json = [{"from": "learner", "to": "provider", "amount": 5.0}]
    assert result.cost == {"amount": 2.5, "currency": "EUR", "rule": "each", "owed": owed, "is_whole": True}


def test_a_session_ends_where_its_target_is_reached() -> None:
    result, events = stalled({"learning_rate = 0.003": "learning_rate = 0.003\ntarget = 0.8"})
    ((round, what),) = of_kind(events, "ended-early")
    assert round == 1
    assert "reaches the target of 0.8: the session ends after 1 of 3 rounds" in what
    assert result.rounds_finished == 1
