"""`comity demo`."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from shlex import quote

from comity import faults
from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.cli.several import together
from comity.cli.simulate import use_threads
from comity.cli.tables import show_json, show_result
from comity.errors import InvalidValue
from comity.experiments import with_baselines
from comity.experiments.studies import demo_named, demos, studies_of
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script
from comity.simulation.processes import NodeProcess, running


def run_demo(
    name: str, texts: Sequence[str], *, workdir: Path | None, kill: str | None, as_json: bool, lines: bool = False
) -> None:
    """Runs a script's parties as processes of this machine and shows the result.

    Args:
        name: The demo's; empty for the first.
        texts: The scripts: one session each, one after the other, of the same parties.
        workdir: Where to keep the nodes' files; None for a folder that is removed.
        kill: Party whose daemon is killed in the middle of a round; None for none.
        as_json: Print one JSON object instead of tables.
        lines: Print each round as a JSON object as it comes, and the result last.

    Raises:
        InvalidValue: The party to kill is none that helps.
    """
    name, demo = demo_named(name)
    scripts = [parse_script(text, "the demo's script") for text in texts]
    script = scripts[0]
    if kill is not None and kill not in script.session.acceptors:
        raise InvalidValue(
            "there is no such party to kill",
            expected=", ".join(script.session.acceptors),
            received=kill,
            action="name a party that helps",
        )
    environments = {kill: {faults.ENVIRONMENT: demo.kill}} if kill is not None else {}
    with ExitStack() as stack:
        folder = workdir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comity-")))
        folder.mkdir(parents=True, exist_ok=True)
        progress = stack.enter_context(SessionProgress(quiet=as_json, lines=lines))
        progress.say("starting a daemon for each party, on loopback, with mutual TLS")
        with running(script, folder, threads=script.simulation.threads, environments=environments) as nodes:
            for party, node in nodes.items():
                progress.say(f"  {party:<10} process {node.pid}")
            if kill is not None:
                threading.Thread(target=_revive, args=(nodes[kill], progress), daemon=True).start()
            clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
            driven = [drive(each, clients, progress) for each in scripts]
            processes = [node.pid for node in nodes.values()]
        if studies_of(script.session.protocol).baselines:
            progress.say("training the baselines for comparison")
        use_threads(script)
        results = [result for result, _ in driven]
        summary = driven[0][1]
        for run, result in zip(scripts, results, strict=True):
            result["processes"] = processes
            result["metrics"] = with_baselines(run, result["metrics"])
    result = results[0] if len(results) == 1 else together(results, summary)
    if as_json or lines:
        show_json(result)
    else:
        show_result(result, summary)
        _show_next(name, script.session.seed + len(scripts), workdir)


def _revive(node: NodeProcess, progress: SessionProgress) -> None:
    """Waits until a daemon was killed, and starts it again."""
    if node.exit_code(None) != -signal.SIGKILL:
        return
    progress.say(f"  {node.party} was killed with SIGKILL in the middle of a round")
    node.start()
    progress.say(f"  {node.party} is started again as process {node.pid} and goes on by itself")


def _show_next(name: str, seed: int, workdir: Path | None) -> None:
    demo = "comity demo" if name == next(iter(demos())) else f"comity demo {name}"
    kept = "configurations, logs and the result"
    commands = {
        f"{demo} --seed {seed}": "another seed",
        **(
            {f"{demo} --guarded": "with a leak guard, and samples enough for it"} if demo_named(name)[1].guarded else {}
        ),
        **{f"{demo} --{switch}": does for switch, does in demo_named(name)[1].switches.items()},
        f"{demo} --print-script > s.toml": "the session as a script; change it, then",
        "comity simulate s.toml": "run it in one process: the same result",
        **({f"{demo} --workdir demo": f"keep {kept}"} if workdir is None else {f"ls {quote(str(workdir))}/*": kept}),
    }
    width = max(map(len, commands))
    lines = [f"  {command:<{width}}  {does}" for command, does in commands.items()]
    print("\n".join(["", "Try next:", *lines]))  # noqa: T201
