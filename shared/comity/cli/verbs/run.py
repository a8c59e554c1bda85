"""Verbs that run sessions, over the network or offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comity.cli.verbs.app import RUN, app, offline
from comity.cli.verbs.options import (
    Json,
    JsonLines,
    LastSession,
    Nodes,
    SessionName,
    of_node,
    of_own_node,
    require_alone,
)
from comity.node.operating import NodeChoice


@app.command(rich_help_panel=RUN)
@of_node
def run(
    script: Annotated[Path, typer.Argument(help="A script with a [session] table.")],
    *,
    node: NodeChoice,
    nodes: Nodes = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Number of rounds to buy, in place of what the script says.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once the contract is agreed on, or an approval is waited for.")
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="With --nodes, how long to wait for nodes that are not ready yet, in seconds.")
    ] = 0.0,
    json_output: Json = False,
    json_lines: JsonLines = False,
) -> None:
    """Runs a session from your own node, and follows it.

    The node goes on with it when this command is interrupted; comity watch comes back to it.

    Example: `comity run session.toml --node clinic`
    """
    from comity.cli.run import run_everywhere, run_script

    if nodes is not None:
        require_alone(node, detach=detach)
        run_everywhere(script, nodes, rounds=rounds, wait_s=wait, as_json=json_output, lines=json_lines)
        return
    run_script(script, node=node, rounds=rounds, detach=detach, as_json=json_output, lines=json_lines)


@app.command(name="open", rich_help_panel=RUN)
@of_node
def open_session(
    script: Annotated[Path, typer.Argument(help="A script with a [session] table.")],
    *,
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Opens a session at your node, which others may join.

    Example: `comity open session.toml --node consortium`
    """
    from comity.cli.run import open_script

    open_script(script, node=node, as_json=json_output)


@app.command(rich_help_panel=RUN)
@of_node
def join(
    address: Annotated[str, typer.Argument(help="Who opened it: a configured peer, or its address.")],
    session: SessionName,
    *,
    node: NodeChoice,
    detach: Annotated[bool, typer.Option("--detach", help="Return once the session is joined.")] = False,
    json_output: Json = False,
    json_lines: JsonLines = False,
) -> None:
    """Joins a session that another party has opened, and follows it.

    Example: `comity join consortium s-3f9c01d2a7b4 --node clinic`
    """
    from comity.cli.run import join_session

    join_session(address, session, node=node, detach=detach, as_json=json_output, lines=json_lines)


@app.command(rich_help_panel=RUN)
@of_node
def cancel(session: SessionName, *, node: NodeChoice, json_output: Json = False) -> None:
    """Ends a session before its time, and tells the other party.

    What was bought until then stays in the ledger.

    Example: `comity cancel s-3f9c01d2a7b4 --node clinic`
    """
    from comity.cli.sessions import cancel_session

    cancel_session(session, node, as_json=json_output)


@app.command(rich_help_panel=RUN)
@of_node
def resume(session: LastSession = "", *, node: NodeChoice, json_output: Json = False) -> None:
    """Goes on with a session that stopped.

    That is one that waited in vain for the other party, or for room on the disk: nothing of it is lost.

    Example: `comity resume s-3f9c01d2a7b4 --node clinic`
    """
    from comity.cli.sessions import resume_session

    resume_session(session, node, as_json=json_output)


@offline.command(name="export")
@of_own_node
def export_round(
    session: Annotated[
        str, typer.Argument(metavar="SESSION", help="The session; left out, the one that was entered last.")
    ] = "",
    *,
    script: Annotated[Path | None, typer.Option(help="Begin the session that this script describes.")] = None,
    node: NodeChoice,
    out: Annotated[Path, typer.Option(help="Folder where the bundle goes: the drive that travels, say.")] = Path(),
    json_output: Json = False,
) -> None:
    """Does this node's part of a round, and writes it to a bundle.

    Take the file to the other party, who imports it. It can be written again at any time.

    Example: `comity offline export --script session.toml --out /media/drive`
    """
    from comity.cli.offline import export_bundle

    export_bundle(session, script, node.config_file, out, as_json=json_output)


@offline.command(name="import")
@of_own_node
def import_round(
    bundle: Annotated[Path, typer.Argument(help="The other side's bundle.")],
    *,
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Takes the other party's bundle.

    One that was taken already changes nothing.

    Example: `comity offline import /media/drive/s-3f9c01d2a7b4-round-1-hospital.bundle`
    """
    from comity.cli.offline import import_bundle

    import_bundle(bundle, node.config_file, as_json=json_output)
