"""Real daemons and real SIGKILLs: one for each protocol and side; `make chaos` makes hundreds."""

from __future__ import annotations

import pytest

from comity.experiments import demo_script
from comity.experiments.chaos import Fates, points_of, run
from comity.experiments.studies import studies_of
from comity.faults import EVERYWHERE
from comity.node.sessions.script import Script, parse_script
from tests.cases import PROTOCOLS


def shortened(protocol: str) -> Script:
    """A protocol's first demo with as few rounds as it takes to be killed in each."""
    demo = next(iter(studies_of(protocol).demos), None)
    assert demo is not None, f"{protocol} has no demo, and is killed nowhere"
    script = parse_script(demo_script(demo, 2))
    rounds = min(script.session.rounds, 10)
    return script.model_copy(update={"session": script.session.model_copy(update={"rounds": rounds})})


@pytest.mark.timeout(400)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_session_survives_a_kill_on_each_side(protocol: str) -> None:
    script = shortened(protocol)
    # Parties of a role are alike: one of them stands for all.
    sides = {script.session.acceptors[0], next(name for name in script.party if name not in script.session.acceptors)}
    tally = run(script, kills=2, seed=1, sides=sorted(sides), a_session=2)
    # Where both sides die at once, there is one more.
    assert tally.kills.total() >= 2
    assert {side for side, _ in tally.kills} == sides
    assert (tally.identical, tally.lost, tally.charged_twice) == (tally.kills.total(), 0, 0)


def test_kills_are_spread_over_all_points() -> None:
    points = points_of("teacher_votes", "student")
    assert set(EVERYWHERE) <= set(points)
    fates = Fates(0, "student", points)
    assert sorted(fates.draw()[0] for _ in points) == sorted(points)


def test_a_kill_that_a_session_did_not_come_to_is_the_next_ones_and_earlier() -> None:
    fates = Fates(0, "student", {"training": 1, "transfer": 12})
    first, second = fates.draw(), fates.draw()
    fates.missed(("transfer", 5))
    assert fates.draw() == ("transfer", 2)
    fates.missed(("training", 1))
    assert fates.draw() == ("training", 1)
    assert fates.draw()[0] == first[0] != second[0]
