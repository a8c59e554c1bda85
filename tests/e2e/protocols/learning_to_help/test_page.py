"""`docs/asking-a-server.md`, word for word."""

from __future__ import annotations

import shutil
import socket
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.pages import ROOT, Follower, steps

PAGE = ROOT / "docs" / "asking-a-server.md"
PORT = "5631"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_word_for_word(short_path: Path) -> None:
    if shutil.which("sed") is None:
        pytest.skip("the page edits a file with sed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = str(probe.getsockname()[1])
    with ExitStack() as stack:
        reader = Follower({"": short_path}, stack)
        for step in steps(PAGE):
            reader.take(replace(step, line=step.line.replace(PORT, free)))
