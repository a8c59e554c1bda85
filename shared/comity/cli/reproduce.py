"""`comity reproduce`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from comity.bench.machine import describe
from comity.cli.tables import print_table, show_json
from comity.errors import InvalidValue
from comity.experiments.datasets import Datasets
from comity.experiments.registry import chosen, experiments
from comity.experiments.reproduction import SCALES, ExperimentContext, Reproduction, reproduce, write


def list_experiments(*, as_json: bool) -> None:
    """Lists every figure and table with what it shows."""
    if as_json:
        rows = [
            {
                "name": each.name,
                "shows": each.shows,
                "substitute": each.substitute,
                "claims": [claim.text for claim in each.claims],
            }
            for each in experiments().values()
        ]
        show_json({"experiments": rows})
        return
    table = Table("name", "shows", "claims", box=None, pad_edge=False)
    for each in experiments().values():
        table.add_row(each.name, each.shows, str(len(each.claims)))
    print_table(table)


def run_experiments(names: list[str], scale: str, out: Path, data: Path | None, *, as_json: bool) -> None:
    """Runs experiments, writes what they leave, and prints what they say about the papers' claims.

    Raises:
        InvalidValue: There is no experiment of a name, or no such scale.
        MissingFile: Its data are not there.
    """
    at = next((each for each in SCALES if each == scale), None)
    if at is None:
        raise InvalidValue("no such scale", expected=", ".join(SCALES), received=scale, action="choose one of these")
    # The last digits depend on the number of threads.
    torch.set_num_threads(1 if at != "paper" else torch.get_num_threads())
    context = ExperimentContext(Datasets(out / "data", data), lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201
    results = []
    for experiment in chosen(names):
        context.say(f"{experiment.name}: {experiment.shows}")
        if instead := experiment.instead(at):
            context.say(f"  at this scale: {instead}")
        result = reproduce(experiment, at, context)
        paths = write(experiment, result, out / experiment.name / at, describe())
        results.append(result.to_json())
        if not as_json:
            _show(result, paths)
    if as_json:
        show_json({"experiments": results})


def _show(result: Reproduction, paths: list[Path]) -> None:
    console = Console(highlight=False)
    data = "; ".join(result.measured_on)
    console.print(f"{result.experiment}, scale {result.scale}, {result.seconds:.0f} s, on {data}", soft_wrap=True)
    for text, verdict in result.verdicts.items():
        console.print(f"  {verdict}: {text}", soft_wrap=True)
    if result.rows:
        table = Table("in the paper", "", "measured here", "", box=None, pad_edge=False)
        for row in result.rows:
            measured = "–" if row.measured is None else f"{row.measured:.3g}"
            table.add_row(row.label, f"{row.paper:g}", row.here or "–", measured)
        print_table(table)
    for path in paths:
        console.print(f"  {path}", soft_wrap=True)
