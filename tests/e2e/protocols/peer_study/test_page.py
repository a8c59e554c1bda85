"""The page on which people label, in a real browser."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from comity.errors import ComityError, InvalidValue
from comity.protocols.peer_study.verbs.page.routes import routes
from comity.simulation.in_process import simulate
from comity.web.server import Served, serving
from tests.browser import WIDTHS, Opened, opened
from tests.e2e.conftest import COMMAND, clean_environment, until
from tests.e2e.protocols.peer_study.people import SESSION, TIMEOUT_S, Labelled, begun, script, truth

SHOWN_MS = 60_000


def holds(page: Page, expression: str) -> None:
    """Waits until something is so in the page, whose policy lets nothing in it be evaluated by itself."""
    until(lambda: page.evaluate(expression), expression, deadline_s=SHOWN_MS / 1000)


@contextmanager
def page_of(labels: Any, annotator: str = "zoe") -> Iterator[Served]:
    with serving(routes(labels, annotator), "127.0.0.1:0") as served:
        yield served


@contextmanager
def annotating(session: Labelled, party: str, annotator: str) -> Iterator[str]:
    """`comity annotate serve` as a process, ended as people end it; the page's address."""
    words = [str(each) for each in session.command(party, "serve", "--as", annotator, "--json")]
    process = subprocess.Popen([str(COMMAND), *words], stdout=subprocess.PIPE, text=True, env=clean_environment())
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert (said["session"], said["annotator"]) == (SESSION, annotator)
        yield said["url"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_a_whole_session_is_labelled_on_the_page() -> None:
    found = script("ann", guidelines="A 1 with a foot is a 1.\nA 7 may have a bar.")
    labels = truth(found, "ann")
    with TemporaryDirectory(prefix="e2e-") as name, begun(found, Path(name)) as session:
        session.asked("ann", 0)
        with annotating(session, "ann", "zoe") as url, opened(url) as seen:
            page = seen.page
            for step, count in enumerate((4, 3)):
                holds(page, f"state.task && state.task.step === {step}")
                expect(page.locator("#guidelines")).to_contain_text("A 1 with a foot", timeout=SHOWN_MS)
                for number in range(count):
                    holds(page, "document.querySelector('#sample img')?.naturalWidth === 8")
                    expect(page.locator("#count")).to_have_text(f"{number} of {count} labelled", timeout=SHOWN_MS)
                    sample = page.evaluate("current().sample")
                    # Digits are on their own keys.
                    page.keyboard.press(str(labels[sample]))
                    holds(page, f"state.task.samples.filter(isDone).length === {number + 1}")
                page.keyboard.press("Enter")
                page.wait_for_selector("#idle", timeout=SHOWN_MS)
            digest = session.digest
            assert seen.wrong == []
            origin = page.url.rstrip("/")
            assert all(each.startswith((origin, "data:")) for each in seen.fetched)
    assert digest == simulate(script())[0].digest


class Desk:
    """Labels without a node: what the page is served from.

    Args:
        classes: Names of the classes.
        samples: How many there are.
        kind: What they are.
    """

    def __init__(self, classes: int = 10, samples: int = 5, kind: str = "image") -> None:
        self.session = "s-1"
        self.classes = [f"class {number}" for number in range(classes)]
        self.names = [f"scan-{number:03d}" for number in range(samples)]
        self.kind = kind
        self.step: int | None = 0
        self.said: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.refuses = False
        self.changed = threading.Event()
        self.version = 0

    def show(self) -> dict[str, Any]:
        return {
            "version": ["desk", self.version],
            "session": self.session,
            "step": self.step,
            "classes": self.classes,
            "guidelines": "What is in doubt is unsure.",
            "kind": self.kind,
            "columns": ["size", "weight"] if self.kind == "table" else [],
            "annotators": 1,
            "samples": [
                {"sample": each, "is_settled": False, "said": {"zoe": self.said[each]} if each in self.said else {}}
                for each in (self.names if self.step is not None else ())
            ],
        }

    def sample(self, name: str) -> tuple[dict[str, Any], bytes]:
        if name not in self.names:
            raise InvalidValue("no such sample", expected="one", received=name)
        file = BytesIO()
        Image.linear_gradient("L").resize((12, 12)).rotate(30 * self.names.index(name)).save(file, "PNG")
        data = {"image": file.getvalue(), "text": b"First <b>line</b>\nsecond", "table": b""}[self.kind]
        return {"kind": self.kind, "row": [1.25, -3.0]}, data

    def say(self, annotator: str, said: list[Mapping[str, Any]], *, is_final: bool) -> dict[str, Any]:
        assert annotator == "zoe"
        if self.refuses:
            raise InvalidValue("the pool has changed", expected="the same", received="another")
        for each in said:
            self.calls.append(("say", {**each}))
            fields = {"label": each.get("label"), "is_unsure": each["unsure"], "comment": each["comment"]}
            self.said[each["sample"]] = fields | {"is_final": is_final}
        self.version += 1
        return {"taken": len(said), "version": ["desk", self.version]}

    def take_back(self, annotator: str, sample: str) -> dict[str, Any]:
        self.calls.append(("take_back", {"sample": sample}))
        self.version += 1
        return {"taken_back": self.said.pop(sample, None) is not None, "version": ["desk", self.version]}

    def hand_in(self, annotator: str) -> dict[str, Any]:
        self.calls.append(("hand_in", {}))
        for each in self.said.values():
            each["is_final"] = True
        self.version += 1
        return {"handed_in": len(self.said), "version": ["desk", self.version]}


@contextmanager
def labelling(desk: Desk, **how: Any) -> Iterator[Opened]:
    with page_of(desk) as served, opened(served.url, **how) as seen:
        holds(seen.page, "state.task !== null")
        yield seen


def kept(seen: Opened, desk: Desk, calls: int) -> None:
    """Waits until the page has said so much."""
    until(lambda: seen.page.evaluate("state.busy.then(() => true)") and len(desk.calls) >= calls, f"{calls} calls")


def test_skip_unsure_comment_and_undo_by_keys_and_after_a_reload() -> None:
    desk = Desk()
    with labelling(desk) as seen:
        page = seen.page
        page.keyboard.press(".")
        assert page.get_attribute("#unsure", "aria-pressed") == "true"
        page.keyboard.press(",")
        page.keyboard.type("9 or 4?")
        page.keyboard.press("Enter")
        page.keyboard.press("3")
        page.keyboard.press("Space")
        page.keyboard.press("0")
        kept(seen, desk, 3)
        assert desk.calls == [
            ("say", {"sample": "scan-000", "label": 2, "unsure": True, "comment": "9 or 4?"}),
            ("say", {"sample": "scan-001", "skipped": True, "unsure": False, "comment": ""}),
            ("say", {"sample": "scan-002", "label": 9, "unsure": False, "comment": ""}),
        ]
        page.keyboard.press("Backspace")
        kept(seen, desk, 4)
        assert desk.calls[-1] == ("take_back", {"sample": "scan-002"})
        assert page.evaluate("current().sample") == "scan-002"
        page.reload()
        holds(page, "state.task !== null")
        # It goes on where nothing is said, and what was said is there.
        assert page.evaluate("current().sample") == "scan-002"
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert page.input_value("#comment") == "9 or 4?"
        assert page.get_attribute("#unsure", "aria-pressed") == "true"
        assert page.locator("#classes [aria-pressed=true]").inner_text().endswith("class 2")
        # A comment on what is labelled is kept as it is.
        page.fill("#comment", "a 9")
        page.keyboard.press("Enter")
        kept(seen, desk, 5)
        assert desk.calls[-1] == ("say", {"sample": "scan-000", "label": 2, "unsure": True, "comment": "a 9"})
        page.keyboard.press("Enter")
        kept(seen, desk, 6)
        assert desk.calls[-1] == ("hand_in", {})
        assert page.locator("#samples .final").count() == 2
        assert seen.wrong == []


def test_a_key_that_is_held_down_labels_one_sample_and_hands_in_once() -> None:
    desk = Desk()
    with labelling(desk) as seen:
        page = seen.page
        for key in ("3", "Space", "Enter"):
            for _ in range(4):
                # Without an up between them, the second and what follows are repetitions.
                page.keyboard.down(key)
            page.keyboard.up(key)
        kept(seen, desk, 3)
        assert [call for call, _ in desk.calls] == ["say", "say", "hand_in"]
        assert page.evaluate("state.task.samples.filter(isDone).length") == 2


def test_a_picture_that_is_older_than_what_was_typed_changes_nothing() -> None:
    desk = Desk()
    with labelling(desk) as seen:
        page = seen.page
        page.evaluate("globalThis.old = JSON.parse(JSON.stringify(state.task))")
        page.keyboard.press("3")
        kept(seen, desk, 1)
        page.evaluate("take(globalThis.old)")
        assert page.inner_text("#count") == "1 of 5 labelled"
        # One of a desk that was made anew counts, whatever its number.
        page.evaluate("take({ ...globalThis.old, version: ['another', 0] })")
        assert page.inner_text("#count") == "0 of 5 labelled"


def test_more_than_36_classes_have_a_search_and_letters() -> None:
    desk = Desk(classes=40)
    with labelling(desk) as seen:
        page = seen.page
        page.keyboard.press("c")
        kept(seen, desk, 1)
        page.keyboard.press("/")
        page.keyboard.type("class 38")
        assert page.locator("#classes button:visible").count() == 1
        page.keyboard.press("Enter")
        kept(seen, desk, 2)
        assert [fields["label"] for _, fields in desk.calls] == [12, 38]
        assert page.locator("#classes button:visible").count() == 40
    with labelling(Desk(classes=36)) as seen:
        assert seen.page.is_hidden("#search")


def test_what_is_refused_is_told_and_the_page_goes_on() -> None:
    desk = Desk()
    with labelling(desk) as seen:
        page = seen.page
        desk.refuses = True
        page.keyboard.press("1")
        holds(page, "document.getElementById('alert').textContent.includes('the pool has changed')")
        assert page.inner_text("#count") == "0 of 5 labelled"
        desk.refuses = False
        page.keyboard.press("2")
        kept(seen, desk, 1)
        assert page.inner_text("#alert") == ""
        # What comes next comes by itself.
        desk.step = None
        page.wait_for_selector("#idle", timeout=SHOWN_MS)
        desk.step, desk.said = 1, {}
        page.wait_for_selector("#work", timeout=SHOWN_MS)
        expect(page.locator("#title")).to_contain_text("step 1", timeout=SHOWN_MS)


@pytest.mark.parametrize("kind", ["text", "table"])
def test_texts_and_rows_are_text(kind: str) -> None:
    with labelling(Desk(kind=kind)) as seen:
        seen.page.wait_for_selector("#sample .text, #sample table", timeout=SHOWN_MS)
        shown = seen.page.inner_text("#sample")
        assert ("First <b>line</b>\nsecond" if kind == "text" else "-3") in shown
        assert seen.wrong == []


def test_it_fits_a_telephone_and_can_be_used_with_the_tabulator() -> None:
    for width in WIDTHS.values():
        with labelling(Desk(), width=width, dark=width == WIDTHS["narrow"]) as seen:
            assert seen.fits()
            seen.page.keyboard.press("Tab")
            assert seen.page.evaluate("document.activeElement.className") == "skip"
            reached = set()
            for _ in range(25):
                seen.page.keyboard.press("Tab")
                reached.add(seen.page.evaluate("document.activeElement.id || document.activeElement.dataset.label"))
            assert {"0", "9", "skip", "unsure", "comment"} <= reached
            assert seen.wrong == []


def answered(address: str, body: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_without_the_token_there_is_one_line() -> None:
    with page_of(Desk()) as served:
        for address in (served.url.replace(served.token, "wrong"), f"http://{served.address}/"):
            status, text = answered(address)
            assert (status, text.count("\n")) == (403, 1)
            assert "needs its token" in text
        for body in (b"{", b"[1]"):
            status, text = answered(f"{served.url}say", body)
            assert (status, text.count("\n")) == (400, 1)
        assert answered(f"{served.url}sample?sample=x")[0] == 400


def test_a_node_that_is_away_is_told() -> None:
    class Away(Desk):
        def show(self) -> dict[str, Any]:
            raise ComityError("no node answers at the control socket", action="start it")

    with labelling(Away()) as seen:
        expect(seen.page.locator("#idle-text")).to_contain_text("no node answers", timeout=SHOWN_MS)
