"""A session's progress: bars on a terminal, plain lines in a pipe; always on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from comity.contract import Json
from comity.protocol.presentation import Column
from comity.report.numbers import duration, number, size
from comity.session.events import Event

_SAID: Mapping[str, str] = {
    "note": "{what}",
    "ended-early": "{what}",
    "stalled": "round {round}: {what}; {action}",
    "start-weights": "round {round}: {what}; {action}",
    "client-joined": "{client} has joined, {clients} of {of}",
    "client-left": "{client} has left",
}
"""What is said of events in a line."""

_REDRAWS_A_SECOND = 4
"""Few enough for a slow line."""


class SessionProgress:
    """Shows the events of a session as they come; which numbers, its first event says.

    Attributes:
        session: The session, where a line that says what it waits for is to name it.

    Args:
        quiet: Show nothing.
        bytes_and_left: Show, for each round, what crossed so far and how long the rest will take.
        lines: Print each round on standard output instead, as a JSON object on a line of its own.
    """

    def __init__(self, *, quiet: bool = False, bytes_and_left: bool = False, lines: bool = False) -> None:
        self.session = ""
        quiet = quiet or lines
        self._lines = lines
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            refresh_per_second=_REDRAWS_A_SECOND,
            disable=not self._console.is_terminal,
        )
        self._rounds = self._bars.add_task("rounds", total=None, visible=False)
        self._phase = self._bars.add_task("", total=None, visible=False)
        self._more = bytes_and_left
        self._columns: Sequence[Column] = ()
        self._waits: dict[tuple[str, str], str] = {}
        # What is going on within a round when an event of a kind comes; a protocol says it.
        self._within: Mapping[str, str] = {}
        self._of = 0
        # When the first round that was seen live ended, and which it was: what the rest will take is estimated from there.
        self._first: tuple[int, datetime] | None = None

    def __enter__(self) -> Self:
        """Starts drawing."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops drawing and leaves the lines."""
        self._bars.stop()

    def say(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, markup=False)

    def observe(self, event: Event) -> None:
        """Shows an event."""
        if self._lines and event.kind == "round-finished":
            line = {"session": self.session} if self.session else {}
            sys.stdout.write(json.dumps({**line, "round": event.round, **event.fields}) + "\n")
            sys.stdout.flush()
        match event.kind:
            case "session-started":
                self._begin(event.fields)
            case "waiting":
                self._waits[_key(event)] = str(event.fields["waits_for"])
                which = f"session {self.session} " if self.session else ""
                self.say(which + waiting_line(event.fields))
            case "waiting-over":
                self.say(f"the wait for {self._waits.pop(_key(event), 'it')} is over")
            case "round-awaited":
                # A line in every round would be too many: it is seen while it lasts.
                self._bars.update(self._rounds, description=f"rounds: waits for {event.fields['waits_for']}")
            case "round-finished":
                self._bars.update(self._rounds, description="rounds", completed=event.round)
                self.say(self._row(event))
            case "privacy":
                self.say(_guarantee(event.fields))
            case kind if kind in _SAID:
                self.say(_SAID[kind].format(round=event.round, **event.fields))
            case kind if kind in self._within:
                self._show_phase(self._within[kind], event.fields)

    def _begin(self, fields: Mapping[str, Any]) -> None:
        self._columns = [Column(**each) for each in fields["columns"]]
        self._within = fields["progress"]
        self._of = fields["rounds"]
        self._first = None
        self._bars.update(self._rounds, total=self._of, visible=True)
        others = f" with {', '.join(fields['peers'])}" if fields["peers"] else ""
        self.say(f"{fields['protocol']}{others}: {self._of} rounds")
        self.say(self._line(["round", *(each.title for each in self._columns), *(_MORE if self._more else ())]))

    def _row(self, event: Event) -> str:
        cells = [str(event.round), *(number(event.fields.get(each.field), each.kind) for each in self._columns)]
        if self._more:
            crossed = (event.fields.get(name) for name in ("bytes_sent", "bytes_received"))
            cells += ["-" if each is None else size(float(str(each))) for each in crossed]
            cells.append(self._left(event))
        return self._line(cells)

    def _line(self, cells: Sequence[str]) -> str:
        titles = ["round", *(each.title for each in self._columns), *_MORE]
        return "  ".join(
            f"{cell:>{max(len(title), 8 if at else 0)}}"
            for at, (cell, title) in enumerate(zip(cells, titles, strict=False))
        )

    def _left(self, event: Event) -> str:
        if self._first is None:
            self._first = event.round, event.time
            return "-"
        round, time = self._first
        a_round = (event.time - time).total_seconds() / max(1, event.round - round)
        return duration(a_round * (self._of - event.round))

    def _show_phase(self, name: str, fields: Mapping[str, Json]) -> None:
        done: Any = fields["index"]
        total: Any = fields["of"]
        self._bars.update(self._phase, description=name, completed=done + 1, total=total, visible=True)


def waiting_line(fields: Mapping[str, Any]) -> str:
    """What a session waits for, and what ends the wait, in one line."""
    why = f" ({fields['why']})" if fields.get("why") else ""
    trying = f": trying again for {duration(float(fields['wait_s']))}" if "wait_s" in fields else ""
    return f"waits for {fields['waits_for']}{why}{trying}; {fields['ends_with']}"


def _key(event: Event) -> tuple[str, str]:
    return str(event.fields["reason"]), str(event.fields["subject"])


def _guarantee(fields: Mapping[str, Any]) -> str:
    return (
        f"differential privacy of this party's samples: epsilon {fields['epsilon']:.3g}, delta {fields['delta']:.3g} "
        f"(by the paper's formula {fields['paper_epsilon']:.3g}, {fields['paper_delta']:.3g}); {fields['not_covered']}"
    )


_MORE = ("sent", "received", "left")
