"""`comity statement`: what a session came to, round by round and party by party, and who owes whom what."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from rich.table import Table

from comity.cli.tables import cost_line, money, print_table, show_json
from comity.errors import InvalidValue
from comity.node.operating import NodeChoice
from comity.node.sessions.kept import stored_contract
from comity.node.sessions.statement import Statement, StatementLine, cost, statement_of_session
from comity.report.numbers import number, size
from comity.store.sql_store import SqlStore

_FIRST = ("session", "unit", "first", "count", "party")
_LAST = ("bytes_sent", "bytes_received", "charged", "from", "to", "amount", "currency")


def show_statement(session: str, node: NodeChoice, store: str, *, as_csv: bool, as_json: bool) -> None:
    """Prints a session's statement: as a table, for a spreadsheet, or as JSON.

    Raises:
        MissingFile: The node keeps nothing.
        InvalidValue: There is no such session, or two forms are asked for.
        LedgerBroken: Something is unpaid or unearned.
    """
    if as_csv and as_json:
        raise InvalidValue(
            "two forms are asked for", expected="--csv or --json", received="both", action="leave out one"
        )
    with closing(SqlStore(store or node.store_url, read_only=True)) as opened, opened.transaction():
        sessions = opened.sessions()
        kept = opened.find(session) if session else (sessions[-1] if sessions else None)
        if kept is None:
            raise InvalidValue(
                "no such session at this node",
                expected=", ".join(each.session for each in sessions) or "none yet",
                received=session or "none",
                action="comity sessions lists them",
            )
        statement = statement_of_session(opened, kept, *stored_contract(kept))
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        names = [each.field for each in statement.columns]
        writer.writerow([*_FIRST, *(name.removesuffix("_by_round") for name in names), *_LAST])
        writer.writerows([_written(row[name]) for name in (*_FIRST, *names, *_LAST)] for row in _rows(statement))
        return
    if as_json:
        show_json({"session": kept.session, "lines": [*_rows(statement)], "cost": cost(statement)})
        return
    print_table(_table(statement))
    summed = cost(statement)
    what = "no price was agreed on" if summed is None else f"owed: {cost_line(summed)}"
    sys.stdout.write(f"{what}\n")


def _rows(statement: Statement) -> Iterator[dict[str, Any]]:
    """The lines as rows of a table, by the names of its columns."""
    price = statement.contract.price
    for line in statement.lines:
        yield {
            "session": statement.contract.session,
            "unit": line.units.unit,
            "first": line.units.first,
            "count": line.units.count,
            "party": line.party,
            **{each.field: line.said.get(each.field) for each in statement.columns},
            "bytes_sent": line.sent,
            "bytes_received": line.received,
            "charged": line.charged,
            "from": line.payer,
            "to": line.payee,
            "amount": line.amount,
            "currency": price.currency if price is not None and line.payer else "",
        }


def _written(value: object) -> object:
    """A cell of a spreadsheet: text that one would take for a formula is text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _table(statement: Statement) -> Table:
    table = Table("units", "party", box=None, pad_edge=False)
    for each in statement.columns:
        table.add_column(each.title, justify="right")
    priced = statement.contract.price is not None
    for title in ("sent", "received", "charged", *(("from", "to", "amount") if priced else ())):
        table.add_column(title, justify="right")
    for line in statement.lines:
        said = [number(line.said.get(each.field), each.kind) for each in statement.columns]
        owed = [line.payer, line.payee, _amount(line)] if priced else []
        table.add_row(
            str(line.units), line.party, *said, size(line.sent), size(line.received), str(line.charged), *owed
        )
    return table


def _amount(line: StatementLine) -> str:
    return "" if not line.payer else "not known here" if line.amount is None else money(line.amount)
