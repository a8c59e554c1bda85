"""The command, and the words that verbs stand under."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from comity.cli.extensions import VerbGroup

app = typer.Typer(
    name="comity",
    cls=VerbGroup,
    help="Organisations help each other's models while the data stays where it is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

TRY, RUN, LOOK, USE = "Try it", "Run sessions", "Watch sessions", "Use what they left"
SET_UP, ACCOUNT, THERE_IS = "Set up a node", "Account for it", "What there is"
"""What verbs are for; help shows them so."""

ledger = typer.Typer(help="What left this node, and what came: list, verify, compare.", no_args_is_help=True)
app.add_typer(ledger, name="ledger", rich_help_panel=ACCOUNT)

trust = typer.Typer(help="Whose certificates this node accepts.", no_args_is_help=True)
app.add_typer(trust, name="trust", rich_help_panel=SET_UP)

offline = typer.Typer(help="Rounds without a network: write a bundle, take the other side's.", no_args_is_help=True)
app.add_typer(offline, name="offline", rich_help_panel=RUN)

decisions = typer.Typer()
app.add_typer(decisions, name="sessions", rich_help_panel=LOOK)


def _print_version(wanted: bool) -> None:
    if wanted:
        from comity import version

        sys.stdout.write(f"{version()}\n")
        raise typer.Exit


@app.callback()
def comity(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Organisations help each other's models while the data stays where it is."""
