"""Verbs that show sessions, and decide on what waits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comity.cli.verbs.app import LOOK, app, decisions
from comity.cli.verbs.options import Json, JsonLines, LastSession, Nodes, SessionName, of_node, require_alone
from comity.node.operating import NodeChoice


@app.command(rich_help_panel=LOOK)
@of_node
def watch(
    session: LastSession = "",
    *,
    node: NodeChoice,
    json_output: Json = False,
    json_lines: JsonLines = False,
) -> None:
    """Follows a session live, from its first round to its end.

    The same at both parties. In a pipe, one line a round.

    Example: `comity watch s-3f9c01d2a7b4 --node clinic`
    """
    from comity.cli.run import watch_session

    watch_session(session, node=node, as_json=json_output, lines=json_lines)


@app.command(rich_help_panel=LOOK)
@of_node
def status(*, node: NodeChoice, json_output: Json = False) -> None:
    """Shows one picture of a node: sessions, queues, bytes, disk, privacy budget and the tail of its ledger.

    Example: `comity status --node clinic`
    """
    from comity.cli.status import show_status

    show_status(node, as_json=json_output)


@app.command(rich_help_panel=LOOK)
@of_node
def health(*, node: NodeChoice, json_output: Json = False) -> None:
    """Says whether a node serves: for health checks of containers, and for scripts.

    It asks gRPC's standard health service at the node's control socket. Exits with 1 while the node starts or stops.

    Example: `comity health --node clinic`
    """
    from comity.cli.status import show_health

    raise typer.Exit(show_health(node, as_json=json_output))


@app.command(rich_help_panel=LOOK)
@of_node
def reload(*, node: NodeChoice, json_output: Json = False) -> None:
    """Has a node read its configuration again: trust, policy, limits and peers; says what waits for a restart.

    The same as SIGHUP, which says it in the node's log. A file that cannot be used changes nothing.

    Example: `comity reload --node clinic`
    """
    from comity.cli.status import reload_node

    reload_node(node, as_json=json_output)


@decisions.callback(invoke_without_command=True)
@of_node
def sessions(
    context: typer.Context,
    *,
    node: NodeChoice,
    nodes: Nodes = None,
    json_output: Json = False,
) -> None:
    """Lists a node's sessions, with their state and rounds; accepts and refuses those that wait for an operator.

    Example: `comity sessions --node clinic`
    """
    from comity.cli.sessions import list_everywhere, list_sessions

    if context.invoked_subcommand is not None:
        return
    if nodes is not None:
        require_alone(node)
        list_everywhere(nodes, as_json=json_output)
        return
    list_sessions(node, as_json=json_output)


@decisions.command(name="accept")
@of_node
def accept(session: SessionName, *, node: NodeChoice, json_output: Json = False) -> None:
    """Agrees to a proposal that waits for an operator of this node.

    Only where `policy.approve = "ask"`; the session then goes on by itself.

    Example: `comity sessions accept s-3f9c01d2a7b4 --node hospital`
    """
    from comity.cli.sessions import accept_session

    accept_session(session, node, as_json=json_output)


@decisions.command(name="refuse")
@of_node
def refuse(
    session: SessionName,
    *,
    reason: Annotated[str, typer.Option(help="Why; the other party is told.")] = "",
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Refuses a proposal that waits for an operator of this node.

    Example: `comity sessions refuse s-3f9c01d2a7b4 --reason budget --node hospital`
    """
    from comity.cli.sessions import refuse_session

    refuse_session(session, reason, node, as_json=json_output)


@app.command(name="show", rich_help_panel=LOOK)
@of_node
def show_session(session: LastSession = "", *, node: NodeChoice, json_output: Json = False) -> None:
    """Shows a session: state, contract, bytes and result.

    Example: `comity show s-3f9c01d2a7b4 --node clinic`
    """
    from comity.cli.sessions import show_session as run_show

    run_show(session, node, as_json=json_output)


@app.command(rich_help_panel=LOOK)
@of_node
def report(
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SESSION]...", help="The session, or several to compare; left out, the one that was entered last."
        ),
    ] = None,
    *,
    out: Annotated[Path | None, typer.Option(help="Where the page goes; SESSION.html, if left out.")] = None,
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Writes a session as an HTML page: what it came to, curves, bytes, contract.

    One file that needs nothing else, to be sent or kept. Of several sessions it shows what each came to, and their curves
    in one picture.

    Example: `comity report s-3f9c01d2a7b4 --node clinic --out report.html`
    """
    from comity.cli.report import write_report

    write_report(sessions or [], out, node, as_json=json_output)
