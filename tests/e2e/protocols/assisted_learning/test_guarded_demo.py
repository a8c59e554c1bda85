"""`comity demo --guarded`: two daemons with samples enough for a leak guard, as one line, and the same bits in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comity.experiments import demo_script
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate


@pytest.mark.slow
def test_the_guarded_demo_holds_rows_and_says_so(comity: Any, short_path: Path) -> None:
    result = comity.json("demo", "--guarded", "--seed", 0, "--workdir", "kept", cwd=short_path)
    assert result["preset"] == "guarded"
    assert 0 < result["rows_held"] < result["rows_judged"] / 2
    metrics = result["metrics"]
    assert metrics["assisted"] > 0.93
    assert all(0 <= each < 1 for each in metrics["rows_held_by_round"])
    assert max(metrics["rows_held_by_round"]) > 0
    simulated, _ = simulate(parse_script(demo_script("assisted-learning", 0, guarded=True)))
    assert simulated.digest == result["digest"]
