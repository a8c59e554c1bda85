"""Pictures of the page on which people label, for docs/labelling.md: a part of `make screenshots`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.browser import WIDTHS, Opened, opened
from tests.e2e.protocols.peer_study.people import begun, script, truth
from tests.e2e.protocols.peer_study.test_page import annotating, holds

IMAGES = Path(__file__).parents[4] / "docs" / "images"
GUIDELINES = """\
Say what the writer meant.

A 7 may have a bar, a 1 a foot.
Where two digits are as likely as each other, say one and mark it as unsure.
Skip what is no digit.
"""
TYPED = ["", "", "", "Space", "."]
"""What is typed at the first samples before their label."""


def labelling(folder: Path) -> None:
    """A session that waits for ten labels, of which a person has given some: the fifth sample."""
    found = script("ann", guidelines=GUIDELINES, initial=10)
    labels = truth(found, "ann")
    with begun(found, folder) as session:
        session.asked("ann", 0)
        with annotating(session, "ann", "zoe") as url:
            with opened(url, width=WIDTHS["wide"]) as seen:
                for number, before in enumerate(TYPED):
                    _shown(seen, number)
                    if before:
                        seen.page.keyboard.press(before)
                    if before != "Space":
                        seen.page.keyboard.press(str(labels[seen.page.evaluate("current().sample")]))
                holds(seen.page, f"state.task.samples.filter(isDone).length === {len(TYPED)}")
                _back(seen, "annotate")
            with opened(url, width=WIDTHS["narrow"], dark=True) as seen:
                _back(seen, "annotate-narrow")


def _shown(seen: Opened, number: int) -> None:
    holds(seen.page, f"state.at === {number} && document.querySelector('#sample img')?.naturalWidth === 8")


def _back(seen: Opened, name: str) -> None:
    """Goes back to the last sample that has a label, and takes the picture."""
    _shown(seen, len(TYPED))
    seen.page.keyboard.press("ArrowLeft")
    _shown(seen, len(TYPED) - 1)
    assert seen.fits(), f"{name}: something is beyond its width"
    assert not seen.wrong, seen.wrong
    seen.page.screenshot(path=IMAGES / f"{name}.png", full_page=True)


if __name__ == "__main__":
    with TemporaryDirectory(prefix="comity-") as scratch:
        labelling(Path(scratch) / "labelling")
