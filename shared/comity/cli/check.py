"""`comity check`: a node's preflight, row by row as it is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from comity.cli.tables import show_json
from comity.node.preflight import Context, Row, Verdict, exit_code, preflight

_MARKS: dict[Verdict, tuple[str, str]] = {
    "passed": ("✓", "green"),
    "warning": ("!", "yellow"),
    "failed": ("✗", "red"),
    "skipped": ("–", "dim"),
}
_NAME_WIDTH = 26


def check_node(role: str, config: Path, script: Path | None, *, as_json: bool) -> int:
    """Checks whether a node can work, and prints what was found.

    Returns:
        The exit code: 2 where this node has to be set right, 1 where only a peer has, else 0.
    """
    rows = preflight(Context(config, role, script))
    if as_json:
        found = list(rows)
        code = exit_code(found)
        show_json({"ok": code == 0, "rows": [asdict(row) for row in found]})
        return code
    console = Console(highlight=False)
    shown = list(_as_table(rows, console) if console.is_terminal else _as_lines(rows, console))
    counts = {verdict: sum(row.verdict == verdict for row in shown) for verdict in _MARKS}
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    return exit_code(shown)


def _as_table(rows: Iterable[Row], console: Console) -> Iterator[Row]:
    table = Table("", "check", "found", "what to do", box=None, pad_edge=False)
    # What runs past the screen scrolls away instead of being cut.
    with Live(table, console=console, vertical_overflow="visible", auto_refresh=False) as live:
        for row in rows:
            mark, style = _MARKS[row.verdict]
            table.add_row(Text(mark, style), Text(row.check), Text(_printable(row.found)), Text(_printable(row.action)))
            live.update(table, refresh=True)
            yield row


def _as_lines(rows: Iterable[Row], console: Console) -> Iterator[Row]:
    for row in rows:
        line = f"{_MARKS[row.verdict][0]} {row.check:{_NAME_WIDTH}} {row.found}"
        line += f"; {row.action}" if row.action else ""
        console.out(_printable(line), highlight=False)
        console.file.flush()
        yield row


def _printable(text: str) -> str:
    # Part of it is what peers say of themselves: nothing of it is to steer the terminal.
    return "".join(each if each.isprintable() else "�" for each in text)
