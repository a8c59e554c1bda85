"""`comity demo`."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from comity.cli.progress import SessionProgress
from comity.cli.run import follow
from comity.cli.tables import show_json, show_result
from comity.experiments import baselines
from comity.node.control_client import ControlClient
from comity.node.script import Script, parse_script, session_text
from comity.simulation.processes import running


def run_demo(text: str, *, workdir: Path | None, as_json: bool) -> None:
    """Runs a script's parties as processes of this machine and shows the result.

    Args:
        text: The script.
        workdir: Where to keep the nodes' files; None for a folder that is removed.
        as_json: Print one JSON object instead of tables.
    """
    script = parse_script(text, "the demo's script")
    with ExitStack() as stack:
        folder = workdir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comity-")))
        folder.mkdir(parents=True, exist_ok=True)
        progress = stack.enter_context(SessionProgress(quiet=as_json))
        progress.say("starting a daemon for each party, on loopback, with mutual TLS")
        with running(script, folder) as nodes:
            for name, node in nodes.items():
                progress.say(f"  {name:<10} process {node.process.pid}")
            asker = next(name for name in nodes if name not in script.session.helpers)
            with ControlClient(nodes[asker].control_url) as control:
                result = follow(control, control.run(session_text(script)), progress)
            result["processes"] = [node.process.pid for node in nodes.values()]
        progress.say("training the baselines for comparison")
        result["metrics"] |= _baselines(script)
    if as_json:
        show_json(result)
    else:
        show_result(result)
        _show_next(script, workdir)


def _baselines(script: Script) -> dict[str, float | None]:
    """The baselines, computed as the nodes compute: with one thread, so that numbers repeat."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return baselines(script)


def _show_next(script: Script, workdir: Path | None) -> None:
    lines = [
        "",
        "Try next:",
        f"  comity demo --seed {script.session.seed + 1}                     another split, other weights",
        "  comity demo --print-script > s.toml    the session as a script; change it, then",
        "  comity simulate s.toml                 run it in one process: the same digest",
    ]
    if workdir is None:
        lines.append("  comity demo --workdir demo             keep configurations, logs and the model")
    else:
        lines.append(f"  ls {workdir}/*                     configurations, logs and the model")
    print("\n".join(lines))  # noqa: T201
