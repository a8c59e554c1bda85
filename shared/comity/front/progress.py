"""A bar for a session that is followed from Python: in a terminal, and as one line in a notebook."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column as TableColumn

from comity.front.table import Rounds
from comity.protocol.presentation import Column
from comity.report.numbers import number
from comity.session.events import Event


class RoundsBar:
    """Shows and keeps the rounds of a session as they come.

    Args:
        shown: Whether to show them; None for: in a terminal or a notebook.

    Attributes:
        events: All that happened.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self._notebook = _in_notebook()
        terminal = sys.stderr.isatty()
        self._line = self._notebook if shown is None else (shown and not terminal)
        self._bar = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=12),
            TimeElapsedColumn(),
            # What does not fit is cut here, and nowhere else.
            TextColumn("{task.fields[last]}", table_column=TableColumn(no_wrap=True, ratio=1)),
            expand=True,
            console=Console(stderr=True, force_jupyter=False),
            disable=not (terminal and not self._notebook and shown is not False),
        )
        self._task = self._bar.add_task("rounds", total=None, last="")
        self._columns: list[Column] = []
        self._of = 0
        self.events: list[Event] = []

    def __enter__(self) -> Self:
        """Starts to draw."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops to draw."""
        self._bar.stop()
        if self._line and self._of:
            sys.stderr.write("\n")

    def observe(self, event: Event) -> None:
        """Takes an event."""
        self.events.append(event)
        fields: Any = event.fields
        if event.kind == "session-started":
            self._columns = [Column(**each) for each in fields["columns"]]
            self._of = fields["rounds"]
            self._bar.update(self._task, total=self._of)
        if event.kind == "round-finished":
            said = [(each.title, number(fields.get(each.field), each.kind)) for each in self._columns]
            last = ", ".join(f"{title} {value}" for title, value in said if value != "-")
            self._bar.update(self._task, completed=event.round, last=last)
            if self._line:
                sys.stderr.write(f"\rround {event.round}/{self._of}: {last}")
                sys.stderr.flush()

    @property
    def rounds(self) -> Rounds:
        """The rounds so far."""
        return rounds_of(self.events)


def rounds_of(events: list[Event]) -> Rounds:
    """The rounds of which events tell, each once."""
    found: dict[int, dict[str, Any]] = {}
    columns: list[Column] = []
    for event in events:
        fields: Any = event.fields
        if event.kind == "session-started":
            columns = [Column(**each) for each in fields["columns"]]
        if event.kind == "round-finished":
            found[event.round] = row(event)
    return Rounds(list(found.values()), columns)


def row(event: Event) -> dict[str, Any]:
    """A round as a row."""
    return {"round": event.round, **event.fields}


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell is not None else None
    return type(found).__name__ == "ZMQInteractiveShell"
