"""Verbs to try it with: demo, simulation, the papers' figures, what is claimed about speed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from comity.cli.verbs.app import TRY, app
from comity.cli.verbs.options import Json, JsonLines, Seed


@app.command(rich_help_panel=TRY, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def demo(
    context: typer.Context,
    protocol: Annotated[
        str,
        typer.Argument(
            metavar="DEMO",
            help="Which demo, most often a protocol's name; left out, the first. Some have switches of their own.",
        ),
    ] = "",
    *,
    seed: Seed = 0,
    sessions: Annotated[
        int | None,
        typer.Option(min=1, help="Sessions to run one after the other, with seeds that follow; by default the demo's."),
    ] = None,
    guarded: Annotated[
        bool, typer.Option("--guarded", help="The one with a leak guard, and samples enough for it.")
    ] = False,
    print_script: Annotated[bool, typer.Option("--print-script", help="Print the demo's script and stop.")] = False,
    workdir: Annotated[Path | None, typer.Option(help="Keep the nodes' configurations, states and logs here.")] = None,
    kill: Annotated[
        str | None, typer.Option(help="Kill this party's daemon in the middle of a round, and start it again.")
    ] = None,
    json_output: Json = False,
    json_lines: JsonLines = False,
) -> None:
    """Runs a session between node processes of this machine.

    They are daemons as on two machines, on loopback, with mutual TLS; the result is compared with baselines.

    Example: `comity demo --seed 7`
    """
    from comity.cli.switches import taken_apart
    from comity.experiments import demo_script, demo_sessions

    protocol, switches = taken_apart(
        [protocol, *context.args], [each for option in context.command.params for each in option.opts]
    )
    if print_script:
        sys.stdout.write(demo_script(protocol, seed, guarded=guarded, switches=switches))
        return
    from comity.simulation import forking

    # What the daemons need is imported while this process imports what it needs.
    forking.begin()
    from comity.cli.demo import run_demo

    seeds = range(seed, seed + (sessions or demo_sessions(protocol)))
    texts = [demo_script(protocol, each, guarded=guarded, switches=switches) for each in seeds]
    run_demo(protocol, texts, workdir=workdir, kill=kill, as_json=json_output, lines=json_lines)


@app.command(rich_help_panel=TRY)
def simulate(
    script: Annotated[Path, typer.Argument(help="A script with a [party.NAME] table for each party.")],
    *,
    json_output: Json = False,
    json_lines: JsonLines = False,
) -> None:
    """Runs a session with all its parties in one process.

    The result is that of the same session over the network, to the last bit.

    Example: `comity demo --print-script > session.toml && comity simulate session.toml`
    """
    from comity.cli.simulate import run_simulation

    run_simulation(script, as_json=json_output, lines=json_lines)


@app.command(rich_help_panel=TRY)
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks to run.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Run all of them.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: a look whether it works.")] = False,
    json_output: Json = False,
) -> None:
    """Measures what is claimed about speed.

    Each benchmark compares with a named baseline in the same run. Without names, lists them.

    Example: `comity bench transfer`
    """
    from comity.cli.bench import run_benchmarks

    run_benchmarks(names or [], every=every, quick=quick, as_json=json_output)


@app.command(rich_help_panel=TRY)
def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(help="Figures and tables; patterns such as */table-1 too.")
    ] = None,
    *,
    list_: Annotated[bool, typer.Option("--list", help="List every figure and table.")] = False,
    scale: Annotated[
        str,
        typer.Option(
            help="smoke; digits: within 10 minutes on two cores; small: real MNIST; paper: the paper's sizes."
        ),
    ] = "digits",
    out: Annotated[Path, typer.Option(help="Where metrics, pictures and comparisons go.")] = Path("reproduced"),
    data: Annotated[
        Path | None, typer.Option(envvar="COMITY_DATA", help="Folder of the real data sets, such as MNIST.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Runs a figure or table of a paper again, and compares with what the paper says; without names, lists them.

    Example: `comity reproduce */table-1 --scale digits`
    """
    from comity.cli.reproduce import list_experiments, run_experiments

    if list_ or not names:
        list_experiments(as_json=json_output)
        return
    run_experiments(names, scale, out, data, as_json=json_output)
