"""Real daemons and real SIGKILLs: one for each protocol and side; `make chaos` makes hundreds."""

from __future__ import annotations

from itertools import islice
from typing import get_args

import pytest

from comity.experiments import DEMOS, demo_script
from comity.experiments.chaos import fates, run
from comity.node.script import parse_script
from comity.session.faults import Phase


@pytest.mark.timeout(200)
@pytest.mark.parametrize("protocol", DEMOS)
def test_a_session_survives_a_kill_on_each_side(protocol: str) -> None:
    tally = run(parse_script(demo_script(protocol, 2)), kills=2, seed=1)
    assert tally.kills.total() == 2
    assert {side for side, _ in tally.kills} == {"learner", "provider"}
    assert (tally.identical, tally.lost, tally.charged_twice) == (2, 0, 0)


def test_kills_are_spread_over_all_phases() -> None:
    phases = [phase for phase, _ in islice(fates(0, "learner"), len(get_args(Phase)))]
    assert sorted(phases) == sorted(get_args(Phase))
