"""A real browser, for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

WIDTHS = {"wide": 1280, "narrow": 400}
"""Widths at which pages are looked at, in CSS pixels."""


@dataclass
class Opened:
    """A page in the browser.

    Attributes:
        page: The page.
        wrong: What went wrong in it: errors of its scripts, and what the browser complained about or refused.
        fetched: Addresses of all that it asked for.
    """

    page: Page
    wrong: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", lambda request: self.fetched.append(request.url))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.wrong.append(message.text)

    def _failed(self, request: Any) -> None:
        # A stream of events is cut when the page is left.
        if "ERR_ABORTED" not in (request.failure or ""):
            self.wrong.append(f"{request.url}: {request.failure}")

    def fits(self) -> bool:
        """Whether nothing of the page is beyond its width."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


@contextmanager
def opened(url: str, *, width: int = WIDTHS["wide"], dark: bool = False) -> Iterator[Opened]:
    """Opens a page in Chromium until the block is left; at a machine without, the test is skipped."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium here: tests/install-chromium.sh installs it")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            scheme = "dark" if dark else "light"
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            found = Opened(context.new_page())
            found.page.goto(url)
            yield found
        finally:
            browser.close()
