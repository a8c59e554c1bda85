"""`comity audit`: what a peer could have learned from what this node sent."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from rich.table import Table

from comity.cli.tables import print_table, show_json
from comity.errors import InvalidValue, MissingFile
from comity.node.audited import audited
from comity.node.config import NodeConfig, load_config
from comity.node.sessions.kept import stored_contract
from comity.protocol.audits import AuditContext, AuditRun
from comity.protocol.extensions import loaded
from comity.protocol.registry import protocols
from comity.store.places import FILE_NAME, store_url
from comity.store.sql_store import SqlStore


def list_audits(*, as_json: bool) -> None:
    """Lists the audits that protocols have."""
    rows = [
        {"name": audit.name, "protocol": definition.name, "finds": audit.help}
        for definition in protocols()
        for audit in definition.extensions.audits
    ]
    if as_json:
        show_json({"audits": rows})
        return
    if not rows:
        print("no protocol here has an audit")  # noqa: T201
        return
    table = Table("audit", "protocol", "what it finds out", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], row["protocol"], row["finds"])
    print_table(table)


def run_audit(name: str, session: str, state: Path, *, config: Path | None = None, as_json: bool) -> None:
    """Runs an audit of a session's protocol, and prints what it found.

    Raises:
        ComityError: The node's configuration cannot be read.
        MissingFile: There is no node's state.
        InvalidValue: There is no such session, or its protocol has no such audit.
    """
    node = None if config is None else load_config(NodeConfig, config)
    if not (state / FILE_NAME).exists():
        raise MissingFile("no node's state here", expected="a state_dir", received=state, action="name it with --state")
    with closing(SqlStore(store_url(state), read_only=True)) as store:
        kept = store.find(session)
        if kept is None:
            known = ", ".join(each.session for each in store.sessions()) or "none"
            raise InvalidValue(
                "no such session at this node",
                expected=known,
                received=session or "no name",
                action="name one: comity audit NAME SESSION",
            )
        contract, definition = stored_contract(kept)
        audits = {each.name: each for each in definition.extensions.audits}
        if name not in audits:
            raise InvalidValue(
                f"{definition.name} has no such audit",
                expected=", ".join(audits) or "none",
                received=name,
                action="comity audit lists them",
            )
        run: AuditRun = loaded(audits[name].run)
        party = None if node is None else audited(node, str(kept.own["party"]), contract, store, state)
        found = run(AuditContext(contract, kept, store, state, party))
    if as_json:
        show_json({"session": session, "audit": name, "found": dict(found)})
        return
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for key, value in found.items():
        table.add_row(key.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else str(value))
    print_table(table)
