"""A session of Nash bargaining ends where its target is reached, or nothing is gained any more, and charges no more."""

from __future__ import annotations

import pytest

from comity.contract import Json
from comity.node.sessions.result import SessionResult
from comity.node.sessions.script import parse_script
from comity.session.events import Event
from comity.simulation.in_process import simulate
from tests.protocols.nash_bargaining.sessions import SCRIPT

PRICE = '[session.price]\namount = 2.5\nrule = "each"\n'


def ended(terms: str) -> tuple[SessionResult, list[tuple[int, str]]]:
    """A session with more terms; what it came to, and what it said of its end before all rounds."""
    events: list[Event] = []
    text = SCRIPT.replace("power_every = 2", f"power_every = 2\n{terms}").replace(
        "[session.terms]", f"{PRICE}[session.terms]"
    )
    result, _ = simulate(parse_script(text), events.append)
    return result, [(each.round, str(each.fields["what"])) for each in events if each.kind == "ended-early"]


@pytest.mark.parametrize(
    ("terms", "rounds", "says"),
    [
        # Steps of no length: no round's model is better than the first's.
        ("learning_rate = 1e-30\nstop_when_stalled = 2", 3, "nothing was gained in 2 rounds in a row"),
        ("target = 0.01", 1, "reaches the target of 0.01"),
        ('target = 1e9\ntarget_metric = "loss"', 1, "reaches the target of 1e+09"),
    ],
)
def test_a_session_ends_early_says_why_and_charges_no_more(terms: str, rounds: int, says: str) -> None:
    result, ((round, what),) = ended(terms)
    assert round == rounds
    assert says in what
    assert what.endswith(f"the session ends after {rounds} of 4 rounds")
    assert (result.rounds, result.rounds_finished) == (4, rounds)
    cost: Json = result.cost
    assert isinstance(cost, dict)
    owed: list[Json] = [
        {"from": "learner", "to": each, "amount": 2.5 * rounds} for each in ("harmful", "related", "same")
    ]
    assert cost["owed"] == owed


def test_a_session_whose_goal_is_far_goes_on_to_its_end() -> None:
    result, said = ended("target = 2.0\nstop_when_stalled = 4")
    assert said == []
    assert result.rounds_finished == 4
