"""Verbs that set up a node, check it, and become its daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comity.cli.verbs.app import SET_UP, app, trust
from comity.cli.verbs.options import Json, of_own_node
from comity.node.operating import NodeChoice


@app.command(rich_help_panel=SET_UP)
def init(
    role: Annotated[
        str,
        typer.Argument(
            help="The node's role, as comity protocols lists them; or operator, to drive nodes from this machine."
        ),
    ],
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Where the files go, made if it is not there; this folder, if left out."),
    ] = Path(),
    *,
    party: Annotated[str, typer.Option(help="Name of your party, which its certificate states.")],
    listen: Annotated[str, typer.Option(help="Where peers are to reach the node, host:port.")] = "",
    data: Annotated[
        str, typer.Option(help="Its data: csv:FILE, imagefolder:DIR, npz:FILE …; comity data lists what there is.")
    ] = "digits",
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a table, the column with the class or the number, or, given several times, with a number or a label "
            "each; its last one, if left out."
        ),
    ] = None,
    peer: Annotated[list[str] | None, typer.Option(help="A party that it asks, NAME=HOST:PORT.")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="A party that may have sessions with it.")] = None,
    control: Annotated[
        str,
        typer.Option(
            help="Where operators on other machines reach the node, host:port; left out, it is driven from this machine alone."
        ),
    ] = "",
    privacy: Annotated[
        str,
        typer.Option(
            help="What protects its samples. guarded: a leak guard holds back what would show single samples; "
            "dp: that, and only sessions with differential privacy; public: nothing, for public data."
        ),
    ] = "guarded",
    json_output: Json = False,
) -> None:
    """Writes a node's first files: configuration, key and card.

    The card is for other parties; nothing in it is secret. The configuration explains itself, line by line.

    Example: `comity init ROLE hospital --party hospital --allow clinic`
    """
    from comity.cli.init import initialize, parse_peers
    from comity.node.setup.init import NodeChoices

    peers = parse_peers(peer or [])
    choices = NodeChoices(role, party, listen, data, peers, tuple(allow or ()), control, privacy, target or ())
    initialize(folder, choices, as_json=json_output)


@app.command(rich_help_panel=SET_UP)
def prepare(
    script: Annotated[Path, typer.Argument(help="A script with a table for each party.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the folders go, made if it is not there.")],
    *,
    place: Annotated[
        list[str] | None,
        typer.Option(
            help="A place for a party of this role, ROLE or ROLE-NUMBER; left out, each party has one of its name."
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(help="Where a party that helps listens; {place} is its place.")
    ] = "{place}:5500",
    control: Annotated[str, typer.Option(help="Where the operator reaches a party.")] = "{place}:5600",
    json_output: Json = False,
) -> None:
    """Makes the folders of all parties of a simulation: for containers, or the machines of one lab.

    Each party gets configuration, key, card and the others' cards; the operator, what comity run --nodes takes. Whoever
    runs this has all keys: organisations that are apart make their own, with comity init.

    Example: `comity prepare script.toml nodes`
    """
    from comity.cli.prepare import prepare as make
    from comity.simulation.places import Layout

    make(script, folder, Layout(tuple(place or ()), listen, control), as_json=json_output)


@app.command(rich_help_panel=SET_UP)
@of_own_node
def check(
    role: Annotated[str, typer.Argument(help="The node's role; left out, the one that its configuration fits.")] = "",
    *,
    node: NodeChoice,
    script: Annotated[Path | None, typer.Option(help="A session's script: its model, and the room it takes.")] = None,
    json_output: Json = False,
) -> None:
    """Checks whether a node can work, and reaches its peers.

    It looks at configuration, data, model, keys and their dates, disk, clock and device.

    Every row that fails says how to fix it. Exits with 2 where this node has to be set right, with 1 where only a peer has.

    Example: `comity check --config clinic/node.toml --script session.toml`
    """
    from comity.cli.check import check_node

    raise typer.Exit(check_node(role, node.config_file, script, as_json=json_output))


@app.command(rich_help_panel=SET_UP)
@of_own_node
def node(
    role: Annotated[str, typer.Argument(help="The node's role; left out, as the configuration says.")] = "",
    *,
    node: NodeChoice,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Runs a node until it is stopped.

    Ctrl-C and SIGTERM stop it; started again, it takes up its sessions by itself.

    Example: `comity node --config hospital/node.toml`
    """
    from comity.cli.node import run_node

    run_node(role, node.config_file, log_level)


@trust.command()
@of_own_node
def add(
    party: Annotated[str, typer.Argument(help="The party, as its certificate names it.")],
    file: Annotated[Path, typer.Argument(help="The card that it sent you.")],
    *,
    node: NodeChoice,
    address: Annotated[str, typer.Option(help="Where its node listens, host:port, for a node that asks it.")] = "",
    operator: Annotated[bool, typer.Option("--operator", help="It may drive this node, and is no peer.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In place of another card of this party.")] = False,
    json_output: Json = False,
) -> None:
    """Takes a party's card: certificate and receipt key.

    A running node knows it from its next connection on.

    Example: `comity trust add clinic clinic.pem --node hospital`
    """
    from comity.cli.trust import add_party
    from comity.node.setup.trust_store import CardImport

    add_party(CardImport(party, file, operator, address, replace), node=node.folder, as_json=json_output)


@trust.command(name="list")
@of_own_node
def list_(*, node: NodeChoice, json_output: Json = False) -> None:
    """Lists the certificates that a node accepts.

    With their fingerprints, and until when they are good.

    Example: `comity trust list --node hospital`
    """
    from comity.cli.trust import list_trusted

    list_trusted(node.folder, as_json=json_output)
