"""What a finished session is shown as; on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_ACCURACIES = {
    "learner_alone": "learner alone",
    "provider_alone": "provider alone",
    "assisted": "assisted",
    "pooled": "data pooled",
}


def show_json(result: Mapping[str, Any]) -> None:
    """Prints a result as one JSON object."""
    sys.stdout.write(json.dumps(result) + "\n")


def show_result(result: Mapping[str, Any]) -> None:
    """Prints a result as tables: accuracies, what crossed, and the digest."""
    console = Console(highlight=False)
    metrics = result["metrics"]
    rows = [(label, metrics[name]) for name, label in _ACCURACIES.items() if metrics.get(name) is not None]
    if rows:
        console.print()
        console.print(_accuracy_table(rows))
    console.print()
    console.print(_bytes_table(result))
    console.print()
    console.print(f"session {result['session']}, {result['rounds']} rounds, {result['wall_s']:.1f} s")
    console.print(f"model digest {result['digest']}", soft_wrap=True)
    ledger = "verified" if result["ledger_verified"] else "BROKEN"
    console.print(f"ledger {ledger}")


def _accuracy_table(rows: list[tuple[str, float]]) -> Table:
    table = Table("model", "test accuracy", "", box=None, pad_edge=False)
    best = max(value for _, value in rows)
    for label, value in rows:
        bar = "█" * round(40 * value / best)
        table.add_row(label, f"{100 * value:.1f} %", bar, style="bold" if label == "assisted" else "")
    return table


def _bytes_table(result: Mapping[str, Any]) -> Table:
    table = Table("crossed the wire", "sent", "received", box=None, pad_edge=False)
    sent, received = result["bytes_sent"], result["bytes_received"]
    for kind in dict.fromkeys([*sent, *received]):
        table.add_row(kind, _size(sent.get(kind, 0)), _size(received.get(kind, 0)))
    table.add_row("samples", "none", "none", style="dim")
    return table


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
