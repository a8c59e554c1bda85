"""A session of peer study ends where the server's test reaches its target, or nothing is gained any more."""

from __future__ import annotations

from typing import Any

import pytest

from comity.node.sessions.result import SessionResult
from comity.node.sessions.script import parse_script
from comity.session.events import Event
from comity.simulation.in_process import simulate
from tests.protocols.peer_study.sessions import SESSIONS

TESTED = """[party.server]
data = { source = "digits", per_class = 10, splits = { test = { share = 0.9 } } }
"""


def ended(terms: str) -> tuple[SessionResult, Any, list[tuple[int, str]]]:
    """A session with more terms; what it came to, and what it said of its end before all rounds."""
    events: list[Event] = []
    text = SESSIONS["plain"].text.replace("steps = 4", f"steps = 4\n{terms}").replace("[party.server]\n", TESTED)
    result, outcome = simulate(parse_script(text), events.append)
    said = {(each.round, str(each.fields["what"])) for each in events if each.kind == "ended-early"}
    return result, outcome, sorted(said)


@pytest.mark.parametrize(
    ("terms", "rounds", "says"),
    [
        # Steps of no length: no round's model is better than the first's.
        ("learning_rate = 1e-30\nrestart = false\nstop_when_stalled = 2", 3, "nothing was gained in 2 rounds in a row"),
        ("target = 0.01", 1, "reaches the target of 0.01"),
        ('target = 1e9\ntarget_metric = "loss"', 1, "reaches the target of 1e+09"),
    ],
)
def test_a_session_ends_early_and_says_why(terms: str, rounds: int, says: str) -> None:
    result, _, ((round, what),) = ended(terms)
    assert round == rounds
    assert says in what
    assert what.endswith(f"the session ends after {rounds} of 4 rounds")
    assert result.rounds_finished == rounds


def test_a_session_whose_goal_is_far_goes_on_to_its_end() -> None:
    result, _, said = ended("target = 2.0\nstop_when_stalled = 4")
    assert said == []
    assert result.rounds_finished == 4
