"""The page of a session: what it shows, and that nothing of a peer's gets into it as markup."""

from __future__ import annotations

from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any

from comity.protocol.presentation import Column, PerRoundTable, Summary
from comity.report import SessionReport, render
from comity.session.events import Event

HOSTILE = "<script>alert(1)</script>"
ACCURACY = Column("accuracy", "test accuracy", "share")


class Read(HTMLParser):
    """What a browser makes of it: tags and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        # Nothing is fetched from anywhere.
        assert not [value for name, value in attrs if name in {"src", "href"} and not (value or "").startswith("#")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def report(rounds: int = 3, **changes: Any) -> SessionReport:
    started = {"columns": [asdict(ACCURACY)], "peers": ["hospital"], "rounds": rounds}
    summary = Summary(
        "test accuracy", (Column("alone", "alone", "share"), Column("together", "together", "share")), "together"
    )
    events = [
        Event("session-started", 0, started),
        *(Event("round-finished", each, {"accuracy": each / 10}) for each in range(1, rounds + 1)),
        Event("session-finished", 0, {"summary": asdict(summary)}),
    ]
    values: dict[str, Any] = {
        "head": {"session": "s-1", "state": "finished"},
        "contract": {"rounds": rounds},
        "events": events,
        "metrics": {"alone": 0.25, "together": 0.5},
        "sent": {"checkpoint": 1234},
        "received": {"loss": 8},
    }
    return SessionReport(**(values | changes))


def test_it_shows_rounds_outcome_and_bytes() -> None:
    read = Read(render(report()))
    assert read.tags.count("svg") == 1
    for text in ("Session s-1", "test accuracy", "alone", "25.0 %", "together", "50.0 %", "1.2 kB", "8 B"):
        assert text in read.texts


def test_a_statement_has_a_line_for_each_party() -> None:
    statement = PerRoundTable("rewards", (Column("importance", "importance", "number"),), parties="clients")
    metrics = {"clients": ["ann", "bob"], "importance": [[0.5, 0.5], [0.75, None]]}
    read = Read(render(report(statement=statement, metrics=metrics)))
    assert read.tags.count("svg") == 2
    assert {"Rewards", "ann", "bob"} <= set(read.texts)


def test_a_session_that_has_done_nothing_yet_has_a_page() -> None:
    read = Read(render(report(events=[], metrics={}, sent={}, received={})))
    assert "svg" not in read.tags
    assert "Session s-1" in read.texts


def test_what_a_peer_says_is_text() -> None:
    statement = PerRoundTable(HOSTILE, (Column("importance", HOSTILE, "number"),), parties="clients")
    metrics = {"clients": [HOSTILE, "bob"], "importance": [[0.5, 0.5]]}
    page = report(
        statement=statement, metrics=metrics, head={"session": HOSTILE}, contract={"task": HOSTILE}, sent={HOSTILE: 1}
    )
    assert "script" not in Read(render(page)).tags
