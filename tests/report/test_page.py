"""The page of a session: what it shows, and that nothing of a peer's gets into it as markup."""

from __future__ import annotations

from dataclasses import asdict, replace
from html.parser import HTMLParser
from typing import Any

import pytest

from comity.protocol.curves import Curve
from comity.protocol.presentation import Column, PartyTable, PerRoundTable, Relation, Summary
from comity.report import SessionReport, render, render_together
from comity.report.curves import picture
from comity.report.drawing import INK
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


def test_a_number_is_drawn_over_another_than_the_round() -> None:
    relations = (
        Relation(
            "test by labels",
            Column("labels", "labels", "integer", unit="labels"),
            (Column("chosen", "peer study", "score"), Column("random", "random selection", "score")),
        ),
    )
    metrics = {"labels": [20, 40], "chosen": [0.5, 0.75]}
    page = render(report(relations=relations, metrics=metrics))
    assert Read(page).tags.count("svg") == 2
    assert "test by labels. 50.0 % at 20 labels, 75.0 % at 40 labels." in page
    both = render(report(relations=relations, metrics=metrics | {"random": [0.5, 0.6]}))
    assert "peer study: 50.0 % at 20 labels, 75.0 % at 40 labels; random selection: 50.0 %" in both
    # One point is no line, and a result without the numbers has no picture.
    for without in ({"labels": [20], "chosen": [0.5]}, {"chosen": [0.5]}, {}):
        assert Read(render(report(relations=relations, metrics=without))).tags.count("svg") == 1


def test_a_statement_has_a_line_for_each_party() -> None:
    statement = PerRoundTable("rewards", (Column("importance", "importance", "number"),), parties="clients")
    metrics = {"clients": ["ann", "bob"], "importance": [[0.5, 0.5], [0.75, None]]}
    read = Read(render(report(statement=statement, metrics=metrics)))
    assert read.tags.count("svg") == 2
    assert {"Rewards, round by round", "ann", "bob"} <= set(read.texts)


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
    hostile = report(story=[(HOSTILE, True)], compared=None, head={"session": HOSTILE, "role": HOSTILE})
    assert "script" not in Read(render(hostile)).tags
    together = render_together([hostile, hostile, report()])
    assert "script" not in Read(together).tags
    assert HOSTILE in "".join(Read(together).texts)


def test_it_tells_the_story_first_and_what_each_party_came_to() -> None:
    table = PartyTable(
        "who was paid what",
        (Column("importance", "importance", "number"),),
        "clients",
        (Column("fairness", "fairness", "number", "100 is fair"),),
    )
    metrics = {"clients": ["ann", "bob"], "importance": [0.25, 0.75], "fairness": 98.5}
    read = Read(render(report(parties=table, metrics=metrics, story=[("Better than alone: accuracy 50 %.", False)])))
    for text in ("Who was paid what", "ann", "bob", "0.25", "0.75", "fairness 98.5: 100 is fair"):
        assert text in read.texts
    assert read.texts.index("Better than alone: accuracy 50 %.") < read.texts.index("Who was paid what")


def test_a_picture_has_a_title_a_unit_and_words_for_who_does_not_see_it() -> None:
    drawn = picture(Curve(replace(ACCURACY, about="What the test says."), [1, 2], {"": [0.25, 0.5]}))
    assert (drawn.title, drawn.unit) == ("test accuracy", "%")
    assert drawn.about == "What the test says. 25.0 % in round 1, 50.0 % in round 2."
    assert 'role="img" aria-label="test accuracy by round. What the test says. 25.0 %' in drawn.svg
    # It is as dark, or as light, as the text around it.
    assert "currentColor" in drawn.svg
    assert INK not in drawn.svg


@pytest.mark.parametrize("name", [r"$\bad{$", "_private", "a" * 64])
def test_a_picture_has_a_legend_whatever_its_lines_are_called(name: str) -> None:
    drawn = picture(Curve(ACCURACY, [1, 2], {name: [0.25, 0.5], "other": [0.5, 0.75]}))
    texts = Read(drawn.svg).texts
    assert {name, "other"} <= {each.strip() for each in texts}


def test_a_logarithmic_axis_has_numbers_that_are_written_out() -> None:
    loss = Column("loss", "global loss", "number", "", "loss", "log")
    wide = Read(picture(Curve(loss, [1, 2], {"": [55.0, 2.2]})).svg).texts
    assert {"5", "10", "50"} <= {*wide}
    within_a_decade = Read(picture(Curve(loss, [1, 2], {"": [2.9, 2.1]})).svg).texts
    assert {"2.2", "2.8"} <= {*within_a_decade}


def test_losses_have_a_logarithmic_axis_and_say_so() -> None:
    loss = Column("loss", "global loss", "number", "", "loss per sample", "log")
    assert picture(Curve(loss, [1, 2], {"": [100.0, 0.1]})).unit == "loss per sample, logarithmic axis"
    assert picture(Curve(loss, [1, 2], {"": [100.0, 0.0]})).unit == "loss per sample"


def test_sessions_are_compared_beside_each_other_and_in_one_picture() -> None:
    two = [report(head={"session": name, "state": "finished"}) for name in ("s-1", "s-2")]
    read = Read(render_together(two))
    assert read.tags.count("svg") == 1
    for text in ("2 sessions compared", "s-1", "s-2", "test accuracy: together", "checkpoint, sent", "1.2 kB"):
        assert text in read.texts
