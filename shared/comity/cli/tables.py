"""What a finished session is shown as; on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from comity.protocol.presentation import Column, PartyTable, PerRoundTable, Summary
from comity.protocol.registry import protocol
from comity.report.comparison import comparison_table, is_worse, verdict, worse_parts
from comity.report.numbers import number, size
from comity.report.parties import party_table, totals
from comity.report.tested import tested_tables


def show_json(result: Mapping[str, Any]) -> None:
    """Prints a result as one JSON object."""
    sys.stdout.write(json.dumps(result) + "\n")


def show_result(result: Mapping[str, Any], summary: Summary) -> None:
    """Prints a result as tables: metrics, what crossed, and the digest.

    Args:
        result: A result, as `SessionResult.to_json` gives it.
        summary: What of it people compare.
    """
    console = Console(highlight=False)
    metrics = result["metrics"]
    compared = result.get("compared")
    if compared is not None and is_worse(compared):
        # Before anything that looks like a success.
        console.print(f"\n[bold red]{verdict(compared)}[/]", soft_wrap=True)
    shown = [each for each in summary.columns if metrics.get(each.field) is not None]
    if shown:
        console.print()
        console.print(_metric_table(summary, shown, metrics))
    show_tests(summary, metrics)
    if compared is not None:
        show_comparison(compared)
    show_parties(protocol(result["protocol"]).presentation.per_party, metrics)
    console.print()
    table = crossed_table(result["bytes_sent"], result["bytes_received"])
    table.add_row("samples", "none", "none", style="dim")
    console.print(table)
    console.print()
    console.print(f"session {result['session']}, {_rounds(result)}, {result['wall_s']:.1f} s")
    if protocol(result["protocol"]).models:
        console.print(f"model digest {result['digest']}", soft_wrap=True)
    console.print(_protection(result), soft_wrap=True)
    if result.get("cost"):
        console.print(f"costs {cost_line(result['cost'])}", soft_wrap=True, markup=False)
    ledger = "verified" if result["ledger_verified"] else "BROKEN"
    console.print(f"ledger {ledger}")


def show_tests(summary: Summary, metrics: Mapping[str, Any]) -> None:
    """Prints what the tests say, metric by metric and class by class."""
    for each in tested_tables(summary, metrics):
        table = Table("", *each.columns, box=None, pad_edge=False)
        for name, values in each.rows:
            table.add_row(name, *values)
        Console(highlight=False).print(f"\n{each.title}")
        print_table(table)


def show_parties(of: PartyTable | None, metrics: Mapping[str, Any]) -> None:
    """Prints what a session came to for each of its parties."""
    each = party_table(of, metrics)
    if each is None:
        return
    table = Table("", box=None, pad_edge=False)
    for title in each.columns:
        table.add_column(title, justify="right")
    for name, values in each.rows:
        table.add_row(name, *values)
    console = Console(highlight=False)
    console.print(f"\n{each.title}")
    print_table(table)
    for line in totals(of, metrics):
        console.print(line, soft_wrap=True, markup=False)


def show_comparison(compared: Mapping[str, Any]) -> None:
    """Prints whether a session was worth it: what the party has, and what it would have had alone."""
    console = Console(highlight=False)
    each = comparison_table(compared)
    table = Table("", *each.columns, box=None, pad_edge=False)
    for name, values in each.rows:
        table.add_row(name, *values)
    console.print(f"\n{each.title}")
    print_table(table)
    console.print(verdict(compared), soft_wrap=True)
    if worse := worse_parts(compared):
        console.print(f"worse than alone for {', '.join(worse)}", soft_wrap=True, markup=False)


def _protection(result: Mapping[str, Any]) -> str:
    """What protected the samples of the party whose result it is, in one line."""
    preset, judged = result.get("preset", "public"), result.get("rows_judged", 0)
    if preset is None:
        return "privacy as each trainer's own result says: this node trained on no samples"
    if preset == "public":
        return "privacy public: the samples count as public, and nothing of what was sent was held back"
    if not judged:
        return f"privacy {preset}: nothing that this protocol sends was judged"
    return f"privacy {preset}: {result['rows_held'] / judged:.1%} of the rows that were to leave were held back"


def _rounds(result: Mapping[str, Any]) -> str:
    """How many rounds were run, and were bought where these are more."""
    bought = result["rounds"]
    run = result.get("rounds_finished", bought)
    return f"{bought} rounds" if run == bought else f"{run} of {bought} rounds"


def cost_line(cost: Mapping[str, Any]) -> str:
    """What a session costs, in one line."""
    currency = cost["currency"]
    owed = [f"{money(each['amount'])} {currency} from {each['from']} to {each['to']}" for each in cost["owed"]]
    sums = " and ".join(owed) or "nothing"
    rest = "" if cost["is_whole"] else "; what else is owed, the other party's statement says"
    how = "a unit" if cost["rule"] == "each" else "a round, by share"
    return f"{sums} ({money(cost['amount'])} {currency} {how}){rest}"


def money(amount: float) -> str:
    """An amount, to the hundredth or as exactly as it is less."""
    return f"{amount:,.2f}" if round(amount, 2) == round(amount, 6) else f"{amount:,.6g}"


def kept_line(kept: Mapping[str, Any]) -> str:
    """What a session that ended early left, in one line."""
    rounds = kept["rounds"]
    return f"what {rounds} round{'' if rounds == 1 else 's'} came to is kept: model digest {kept['digest'][:16]}…"


def show_folder(result: Mapping[str, Any], folder: object) -> None:
    """Says where a session's files are."""
    what = "model" if protocol(result["protocol"]).models else "result"
    sys.stdout.write(f"the {what} is in {folder}\n")


def _metric_table(summary: Summary, columns: Sequence[Column], metrics: Mapping[str, Any]) -> Table:
    sessions = metrics.get("by_session", {})
    titles = [*sessions, f"mean {summary.title}"] if sessions else [summary.title]
    table = Table("model", *titles, "", box=None, pad_edge=False)
    best = max(metrics[each.field] for each in columns) or 1
    for each in columns:
        value = metrics[each.field]
        bar = "█" * round(40 * max(0.0, value / best))
        cells = [number(of[each.field], each.kind) for of in sessions.values()]
        style = "bold" if each.field == summary.outcome else ""
        table.add_row(each.title, *cells, number(value, each.kind), bar, style=style)
    return table


def crossed_table(sent: Mapping[str, int], received: Mapping[str, int]) -> Table:
    """What crossed the wire, a row for each egress kind, by name: the order is that of every command."""
    table = Table("crossed the wire", "sent", "received", box=None, pad_edge=False)
    for kind in sorted({*sent, *received}):
        table.add_row(kind, size(sent.get(kind, 0)), size(received.get(kind, 0)))
    return table


def per_round_table(table_of: PerRoundTable, metrics: Mapping[str, Any]) -> Table:
    """What every round came to, a row for each party, or one row where a result is of one party alone.

    Args:
        table_of: Which metrics say so.
        metrics: The metrics of a result.
    """
    columns = table_of.columns_of(metrics)
    parties = metrics.get(table_of.parties)
    table = Table("round", *([""] if parties else []), box=None, pad_edge=False)
    for each in columns:
        table.add_column(each.title, justify="right")
    lists = [metrics[each.field] for each in columns]
    for index, values in enumerate(zip(*lists, strict=True)):
        round = str(metrics[table_of.rounds][index] if table_of.rounds in metrics else index + 1)
        for place, party in enumerate(parties or [None]):
            own = values if party is None else [each[place] for each in values]
            cells = [number(value, each.kind) for value, each in zip(own, columns, strict=True)]
            table.add_row(round, *([] if party is None else [party]), *cells)
    for place, party in enumerate(parties or []) if table_of.sums else ():
        sums = (metrics[table_of.sums[each.field]][place] if each.field in table_of.sums else None for each in columns)
        cells = [
            number(value, each.kind) if each.field in table_of.sums else ""
            for value, each in zip(sums, columns, strict=True)
        ]
        table.add_row("all", party, *cells, style="bold")
    return table


def print_table(table: Table) -> None:
    """Prints a table; in a pipe, every row is one line."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # A pipe has no width: every entry is one line.
        console = Console(
            highlight=False, width=console.measure(table, options=console.options.update(width=10_000)).maximum
        )
    console.print(table)
