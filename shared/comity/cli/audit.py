"""`comity audit`: what somebody could have learned from what this node sent."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from comity.cli.tables import print_table, show_json
from comity.contract import Json
from comity.errors import InvalidValue
from comity.protocol.extensions import Audit, AuditContext, loaded
from comity.protocol.registry import protocol
from comity.store.sql_store import SqlStore, store_url


def run_audit(name: str, session: str, state: Path, store: str, *, as_json: bool) -> None:
    """Makes an audit of a session and prints what it found.

    Raises:
        StorageError: Nothing is kept there.
        InvalidValue: There is no such session, or its protocol has no such audit.
    """
    context = _context(session, state, store)
    found: Mapping[str, Json] = loaded(_audit(name, str(context.contract["protocol"])).run)(context)
    if as_json:
        show_json({"audit": name, "session": session, **found})
        return
    table = Table("audit", name)
    for key, value in found.items():
        table.add_row(key, f"{value:g}" if isinstance(value, float) else str(value))
    print_table(table)


def _audit(name: str, of: str) -> Audit:
    audits = {each.name: each for each in protocol(of).extensions.audits}
    if name not in audits:
        near = difflib.get_close_matches(name, audits, n=1)
        raise InvalidValue(
            f"{of} has no such audit",
            expected=", ".join(audits) or "none: it has no audits",
            received=name,
            action=f"did you mean {near[0]}?" if near else "name one of these",
        )
    return audits[name]


def _context(session: str, state: Path, url: str) -> AuditContext:
    with closing(SqlStore(url or store_url(state), read_only=True)) as store:
        kept = store.find(session)
        if kept is None:
            raise InvalidValue(
                "no such session is kept here",
                expected=", ".join(each.session for each in store.sessions()) or "none is",
                received=session,
                action="comity sessions lists them",
            )
        entries = [asdict(each.fact) for each in store.entries(session)]
        return AuditContext(
            kept.contract, kept.own, kept.peers, kept.result or {}, entries, state / "sessions" / session
        )
