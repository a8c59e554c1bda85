"""A round in which nothing was learned says so."""

from __future__ import annotations

import pytest

from comity.experiments import demo_script
from comity.node.sessions.script import parse_script
from comity.session.events import Event
from comity.simulation.in_process import simulate


@pytest.mark.parametrize(("rate", "stalls"), [("1e-30", [1, 2]), ("0.003", [])])
def test_a_stall_is_told(rate: str, stalls: list[int]) -> None:
    text = demo_script("assisted_learning", 0).replace("rounds = 10", "rounds = 2")
    events: list[Event] = []
    simulate(parse_script(text.replace("learning_rate = 0.003", f"learning_rate = {rate}")), events.append)
    told = [event for event in events if event.kind == "stalled"]
    assert [event.round for event in told] == stalls
    assert all("nothing was gained" in str(event.fields["what"]) for event in told)
