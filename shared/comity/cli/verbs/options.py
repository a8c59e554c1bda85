"""Options that mean the same at every verb."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from comity.errors import InvalidValue
from comity.node.operating import NodeChoice

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
JsonLines = Annotated[
    bool,
    typer.Option(
        "--jsonl", help="Print each round as a JSON object on a line of its own as it comes, and the result last."
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the data's split, the initial weights and the order of samples.")
]

StoreUrl = Annotated[str, typer.Option("--store", help="The store's URL, where it is not in the state_dir.")]
Session = Annotated[str, typer.Option("--session", help="This session alone.")]

_ELSE = "Left out, as COMITY_NODE says, or this folder."
_FOLDER = {
    "node": Annotated[str, typer.Option("--node", help=f"Your node: its folder. {_ELSE}")],
    "config": Annotated[
        Path | None,
        typer.Option("--config", help="Your node by its TOML file, where that is no node.toml in its folder."),
    ],
    "state": Annotated[
        Path | None, typer.Option("--state", help="Your node by its state_dir, where its configuration is not at hand.")
    ],
}
_REACHED = _FOLDER | {
    "node": Annotated[
        str,
        typer.Option("--node", help=f"Your node: its folder, or PARTY@HOST:PORT for its control port. {_ELSE}"),
    ],
    "operator": Annotated[
        str,
        typer.Option(
            "--operator",
            help="Folder of your key and certificate, for a control port. Left out, as COMITY_OPERATOR says, or this folder.",
        ),
    ],
}
Nodes = Annotated[
    Path | None, typer.Option("--nodes", help="Drive several nodes: a TOML file with operator and [nodes].")
]
SessionName = Annotated[str, typer.Argument(help="The session's identifier; comity sessions lists them.")]
LastSession = Annotated[
    str, typer.Argument(metavar="SESSION", help="The session; left out, the one that the node entered last.")
]


def of_node(verb: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb that takes a `node: NodeChoice` the options that name a node: the same at every verb."""
    return _with_options(verb, _REACHED)


def of_own_node(verb: Callable[..., None]) -> Callable[..., None]:
    """The same for a verb that works on the node's own files, and so on its machine alone."""
    return _with_options(verb, _FOLDER)


def _with_options(verb: Callable[..., None], options: Mapping[str, Any]) -> Callable[..., None]:
    signature = inspect.signature(verb, eval_str=True)
    own = list(signature.parameters.values())
    place = next(at for at, each in enumerate(own) if each.name == "node")
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if name in {"config", "state"} else "",
            annotation=annotation,
        )
        for name, annotation in options.items()
    ]
    parameters = [*own[:place], *added, *own[place + 1 :]]

    @wraps(verb)
    def named(**given: Any) -> None:
        choice = {("name" if name == "node" else name): given.pop(name) for name in options}
        verb(**given, node=NodeChoice(**choice))

    named.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    named.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    return named


def require_alone(node: NodeChoice, *, detach: bool = False) -> None:
    """Checks that --nodes came without options that have no say beside it; what the environment says gives way to it."""
    given = [each for each in node.option.split() if each.startswith("--")] + (["--detach"] if detach else [])
    if given:
        raise InvalidValue(
            "--nodes goes alone",
            expected="a file that names the nodes and their operator",
            received=f"{' and '.join(given)} beside it",
            action="leave out the one or the other; with --nodes, a session is followed to its end",
        )
