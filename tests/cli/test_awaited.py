"""Who waits for a round to be settled sees for whom, while it lasts; what is not a terminal gets no line in every round."""

from __future__ import annotations

import sys

import pytest

from comity.cli.progress import SessionProgress
from comity.session.events import Event
from tests.cli.conftest import Terminal

STARTED = Event(
    "session-started",
    0,
    {"protocol": "some", "peers": ["coop"], "rounds": 3, "columns": [], "progress": {}},
)
AWAITED = "coop to settle round 2, once the other parties have handed in theirs"


def shown(monkeypatch: pytest.MonkeyPatch, *events: Event, terminal: bool) -> str:
    stream = Terminal("utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setattr(stream, "isatty", lambda: terminal)
        patch.setenv("TERM", "xterm" if terminal else "dumb")
        patch.setenv("COLUMNS", "200")
        with SessionProgress() as progress:
            for event in (STARTED, *events):
                progress.observe(event)
    return stream.text


def test_a_terminal_shows_for_whom_a_round_waits_until_it_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    awaited = Event("round-awaited", 2, {"waits_for": AWAITED})
    # What was drawn last.
    assert shown(monkeypatch, awaited, terminal=True).rpartition("rounds")[2].startswith(f": waits for {AWAITED}")
    settled = shown(monkeypatch, awaited, Event("round-finished", 2, {}), terminal=True)
    assert "waits for" not in settled.rpartition("rounds")[2]


def test_a_file_gets_no_line_of_it_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "waits for" not in shown(monkeypatch, Event("round-awaited", 2, {"waits_for": AWAITED}), terminal=False)
