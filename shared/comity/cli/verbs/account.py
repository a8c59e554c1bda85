"""Verbs that account for what a node did and keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comity.cli.verbs.app import ACCOUNT, app, ledger
from comity.cli.verbs.options import Json, Session, StoreUrl, of_own_node
from comity.node.operating import NodeChoice


@app.command(rich_help_panel=ACCOUNT)
@of_own_node
def gc(
    *,
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Frees the tensors that ended sessions left behind.

    Ledger and results stay.

    Example: `comity gc --state clinic/state`
    """
    from comity.cli.gc import collect_garbage

    collect_garbage(node.state_dir, as_json=json_output)


@app.command(rich_help_panel=ACCOUNT)
@of_own_node
def statement(
    session: Annotated[
        str, typer.Argument(metavar="SESSION", help="The session; left out, the one that was entered last.")
    ] = "",
    *,
    node: NodeChoice,
    store: StoreUrl = "",
    csv: Annotated[bool, typer.Option("--csv", help="Print a table for a spreadsheet instead.")] = False,
    json_output: Json = False,
) -> None:
    """Says what each round came to for whom, what it took on the wire, and who owes whom what.

    The price and its rule are those that the parties agreed on; no money moves here.

    Example: `comity statement s-3f9c01d2a7b4 --csv --state clinic/state > september.csv`
    """
    from comity.cli.statement import show_statement

    show_statement(session, node, store, as_csv=csv, as_json=json_output)


@ledger.command()
@of_own_node
def show(*, node: NodeChoice, store: StoreUrl = "", session: Session = "", json_output: Json = False) -> None:
    """Lists the entries, bytes by kind and charges.

    Example: `comity ledger show --state clinic/state`
    """
    from comity.cli.ledger import show_ledger

    show_ledger(node, store, session, as_json=json_output)


@ledger.command()
@of_own_node
def verify(*, node: NodeChoice, store: StoreUrl = "", session: Session = "", json_output: Json = False) -> None:
    """Checks every chain and every signed statement.

    Names the first entry that is bad, and exits with 1.

    Example: `comity ledger verify --state clinic/state`
    """
    from comity.cli.ledger import verify_ledger

    verify_ledger(node, store, session, as_json=json_output)


@ledger.command()
@of_own_node
def export(
    *,
    node: NodeChoice,
    store: StoreUrl = "",
    session: Session = "",
    peer: Annotated[str, typer.Option("--peer", help="Only what was done with this party.")] = "",
    json_output: Json = False,
) -> None:
    """Writes the ledger to standard output, for the other party.

    With a session, nothing of other sessions shows; with a peer, nothing of other parties.

    Example: `comity ledger export --state clinic/state --session s-1 > ours.jsonl`
    """
    from comity.cli.ledger import export_ledger

    export_ledger(node, store, session, peer, as_json=json_output)


@ledger.command()
@of_own_node
def compare(
    file: Annotated[Path, typer.Argument(help="The ledger that the other party exported.")],
    *,
    node: NodeChoice,
    store: StoreUrl = "",
    session: Session = "",
    json_output: Json = False,
) -> None:
    """Compares the ledger with the other party's.

    Exits with 1 where they differ.

    Example: `comity ledger compare theirs.jsonl --state clinic/state`
    """
    from comity.cli.ledger import compare_ledgers

    if not compare_ledgers(file, node, store, session, as_json=json_output):
        raise typer.Exit(1)


@app.command(rich_help_panel=ACCOUNT)
@of_own_node
def audit(
    name: Annotated[str, typer.Argument(help="The audit; left out, all are listed.")] = "",
    session: Annotated[str, typer.Argument(help="The session's identifier; comity sessions lists them.")] = "",
    *,
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Says what a peer could have learned from what a node sent.

    Without a name, lists the audits that protocols bring.

    Audits that compare with the node's own samples need its configuration.

    Example: `comity audit membership SESSION --config clinic/node.toml`
    """
    from comity.cli.audit import list_audits, run_audit

    if not name:
        list_audits(as_json=json_output)
        return
    config = node.config_file if node.state is None and node.config_file.exists() else None
    run_audit(name, session, node.state_dir, config=config, as_json=json_output)
