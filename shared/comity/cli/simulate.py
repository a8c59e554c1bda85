"""`comity simulate`."""

from __future__ import annotations

from pathlib import Path

import torch

from comity.cli.files import read_script
from comity.cli.progress import SessionProgress
from comity.cli.tables import show_json, show_result
from comity.experiments import with_baselines
from comity.node.registry import protocol
from comity.node.result import with_metrics
from comity.node.script import Script, parse_script
from comity.simulation.in_process import simulate


def run_simulation(path: Path, *, as_json: bool) -> None:
    """Runs a script in this process and shows the result."""
    script = parse_script(read_script(path), str(path))
    use_threads(script)
    with SessionProgress(quiet=as_json) as progress:
        result, _ = simulate(script, progress.observe)
        if script.simulation.baselines:
            progress.say("training the baselines for comparison")
            result = with_metrics(result, with_baselines(script, result.metrics))
    if as_json:
        show_json(result.to_json())
    else:
        show_result(result.to_json(), protocol(result.protocol).summary)


def use_threads(script: Script) -> None:
    """Has this process compute with as many threads as a script says."""
    if script.simulation.threads is not None:
        # Not by OMP_NUM_THREADS: torch read it when it was imported.
        torch.set_num_threads(script.simulation.threads)
