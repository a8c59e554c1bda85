"""`comity simulate`."""

from __future__ import annotations

from pathlib import Path

import torch

from comity.cli.files import read_script
from comity.cli.progress import SessionProgress
from comity.cli.run import summary_of
from comity.cli.tables import show_json, show_result
from comity.experiments import with_baselines
from comity.node.sessions.result import with_metrics
from comity.node.sessions.script import Script, parse_script
from comity.session.events import Event
from comity.simulation.in_process import simulate


def run_simulation(path: Path, *, as_json: bool, lines: bool = False) -> None:
    """Runs a script in this process and shows the result."""
    script = parse_script(read_script(path), str(path))
    use_threads(script)
    events: list[Event] = []
    with SessionProgress(quiet=as_json, lines=lines) as progress:

        def observe(event: Event) -> None:
            events.append(event)
            progress.observe(event)

        result, _ = simulate(script, observe)
        if script.simulation.baselines:
            progress.say("training the baselines for comparison")
            result = with_metrics(result, with_baselines(script, result.metrics))
    if as_json or lines:
        show_json(result.to_json())
    else:
        show_result(result.to_json(), summary_of(events[-1]))


def use_threads(script: Script) -> None:
    """Has this process compute with as many threads as a script says."""
    if script.simulation.threads is not None:
        # Not by OMP_NUM_THREADS: torch read it when it was imported.
        torch.set_num_threads(script.simulation.threads)
