"""The report of every protocol's session, in a real browser: at two widths, light and dark, and in print."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from comity.cli.report import write_report
from comity.node.operating import NodeChoice
from comity.protocol.registry import protocol
from tests.browser import WIDTHS, opened
from tests.cases import PROTOCOLS, plain
from tests.e2e.network import network

_MOST_BYTES = 2 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_it_can_be_read_wherever_it_is_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = plain(name).script
    center = next(party for party, each in script.party.items() if each.role == protocol(name).center)
    with TemporaryDirectory(prefix="e2e-") as folder, network(script, Path(folder)) as found:
        # Whether help was worth it is part of what is looked at.
        found.run()
        page = Path(folder) / "report.html"
        write_report([], page, NodeChoice(state=Path(folder) / center), as_json=True)
        assert str(page) in capsys.readouterr().out
        assert page.stat().st_size < _MOST_BYTES
        for width in WIDTHS.values():
            for dark in (False, True):
                with opened(page.as_uri(), width=width, dark=dark) as seen:
                    _look(seen.page)
                    assert seen.fits(), f"something is beyond {width} pixels"
                    assert seen.wrong == []
                    # It needs nothing else.
                    assert seen.fetched == [page.as_uri()]
        with opened(page.as_uri()) as seen:
            seen.page.emulate_media(media="print")
            _look(seen.page)
            assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert not seen.page.is_visible("details")


def _look(page) -> None:  # type: ignore[no-untyped-def]
    assert page.is_visible(".story p")
    figures = page.locator("figure")
    for at in range(figures.count()):
        figure = figures.nth(at)
        assert figure.locator("figcaption b").inner_text()
        # What it means, and what it shows, for those who do not see it.
        assert figure.locator("svg[role=img]").get_attribute("aria-label")
        assert len(figure.locator("figcaption").inner_text().splitlines()) > 1
