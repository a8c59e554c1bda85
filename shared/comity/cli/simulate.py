"""`comity simulate`."""

from __future__ import annotations

from pathlib import Path

from comity.cli.files import read_script
from comity.cli.progress import SessionProgress
from comity.cli.tables import show_json, show_result
from comity.experiments import baselines
from comity.node.result import with_metrics
from comity.node.script import parse_script
from comity.simulation.in_process import simulate


def run_simulation(path: Path, *, as_json: bool) -> None:
    """Runs a script in this process and shows the result."""
    script = parse_script(read_script(path), str(path))
    with SessionProgress(quiet=as_json) as progress:
        result, _ = simulate(script, progress.observe)
        if script.simulation.baselines:
            progress.say("training the baselines for comparison")
            result = with_metrics(result, baselines(script))
    (show_json if as_json else show_result)(result.to_json())
