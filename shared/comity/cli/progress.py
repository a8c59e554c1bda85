"""A session's progress: bars on a terminal, plain lines in a pipe; always on standard error."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from comity.session.events import Event, Json


class SessionProgress:
    """Shows the events of a session as they come.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._rounds = self._bars.add_task("rounds", total=None, visible=False)
        self._phase = self._bars.add_task("", total=None, visible=False)

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
        self._console.print(text)

    def observe(self, event: Event) -> None:
        """Shows an event."""
        fields = event.fields
        match event.kind:
            case "session-started":
                self._bars.update(self._rounds, total=_number(fields["rounds"]), visible=True)
                self.say(f"{fields['protocol']} with {fields['helper']}: {_number(fields['rounds']):.0f} rounds")
                self.say(
                    _ROW.format("round", "provider's pick", "learner's pick", "global loss", "test accuracy", "seconds")
                )
            case "checkpoint-offered":
                self._show_phase("train, offer", fields)
            case "checkpoint-received":
                self._show_phase("receive", fields)
            case "round-finished":
                self._bars.update(self._rounds, completed=event.round)
                self.say(_round_line(event))

    def _show_phase(self, name: str, fields: Mapping[str, Json]) -> None:
        self._bars.update(
            self._phase,
            description=name,
            completed=_number(fields["index"]) + 1,
            total=_number(fields["of"]),
            visible=True,
        )


_ROW = "{:>5}  {:>15}  {:>14}  {:>12}  {:>13}  {:>7}"


def _round_line(event: Event) -> str:
    fields = event.fields
    accuracy = fields["test_accuracy"]
    return _ROW.format(
        event.round,
        f"{_number(fields['provider_pick']):.0f}",
        f"{_number(fields['learner_pick']):.0f}",
        f"{_number(fields['global_loss']):.4g}",
        "-" if accuracy is None else f"{100 * _number(accuracy):.1f} %",
        f"{_number(fields['seconds']):.2f}",
    )


def _number(value: Json) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"not a number: {value!r}")
    return value
