"""Options that mean the same at every verb."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comity.errors import InvalidValue

if TYPE_CHECKING:
    from comity.cli.nodes import NodeChoice

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the data's split, the initial weights and the order of samples.")
]

State = Annotated[Path, typer.Option(help="The node's state_dir; the node may be running.")]
StoreUrl = Annotated[str, typer.Option("--store", help="The store's URL, where it is not in the state_dir.")]
Session = Annotated[str, typer.Option("--session", help="This session alone.")]

NodeConfigFile = Annotated[Path, typer.Option("--config", help="The node's TOML file; the node must not run.")]
NodeName = Annotated[
    str,
    typer.Option(
        "--node",
        envvar="COMITY_NODE",
        help="Your node: its folder, or PARTY@HOST:PORT for its control port. This folder, if left out.",
    ),
]
Operator = Annotated[
    str, typer.Option(envvar="COMITY_OPERATOR", help="Folder of your key and certificate, for a control port.")
]
Nodes = Annotated[
    Path | None, typer.Option("--nodes", help="Drive several nodes: a TOML file with operator and [nodes].")
]
NodeFolder = Annotated[Path, typer.Option("--node", help="The node's folder, where its node.toml is.")]
SessionName = Annotated[str, typer.Argument(help="The session's identifier; comity sessions lists them.")]
LastSession = Annotated[
    str, typer.Argument(metavar="SESSION", help="The session; left out, the one that the node entered last.")
]

STATE = Path("state")


def chosen(node: str, operator: str) -> NodeChoice:
    """The node that somebody named."""
    from comity.cli.nodes import NodeChoice

    return NodeChoice(node or ".", operator, default=not node)


def require_alone(context: typer.Context, *others: str) -> None:
    """Checks that --nodes came without options that have no say beside it; what the environment says gives way to it."""
    sources = {name: context.get_parameter_source(name) for name in others}
    given = [f"--{name}" for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        raise InvalidValue(
            "--nodes goes alone",
            expected="a file that names the nodes and their operator",
            received=f"{' and '.join(given)} beside it",
            action="leave out the one or the other; with --nodes, a session is followed to its end",
        )
