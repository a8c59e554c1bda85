"""Verbs that list what there is, built in and installed."""

from __future__ import annotations

from typing import Annotated

import typer

from comity.cli.verbs.app import THERE_IS, app
from comity.cli.verbs.options import Json

Name = Annotated[str, typer.Argument(metavar="NAME", help="This one alone; left out, all are listed.")]


@app.command(rich_help_panel=THERE_IS)
def protocols(name: Name = "", *, json_output: Json = False) -> None:
    """Lists the protocols, with their roles and the terms of their sessions.

    Example: `comity protocols --json`
    """
    from comity.cli.catalogue import show_protocols

    show_protocols(name, as_json=json_output)


@app.command(rich_help_panel=THERE_IS)
def models(name: Name = "", *, json_output: Json = False) -> None:
    """Lists the models that a script may name, with their options.

    Example: `comity models mlp`
    """
    from comity.cli.catalogue import show_models

    show_models(name, as_json=json_output)


@app.command(rich_help_panel=THERE_IS)
def data(name: Name = "", *, json_output: Json = False) -> None:
    """Lists the sources that a node may have its data from, with their settings.

    Example: `comity data imagefolder`
    """
    from comity.cli.catalogue import show_data

    show_data(name, as_json=json_output)


@app.command(rich_help_panel=THERE_IS)
def tasks(name: Name = "", *, json_output: Json = False) -> None:
    """Lists the kinds of task that models may be for.

    Example: `comity tasks`
    """
    from comity.cli.catalogue import show_tasks

    show_tasks(name, as_json=json_output)
