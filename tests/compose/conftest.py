"""The image, built once; what each part took is shown at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.compose.stack import ROOT, docker

_TIMES = pytest.StashKey[list[tuple[str, float]]]()


class Times:
    """What parts took.

    Args:
        kept: Where to note it.
    """

    def __init__(self, kept: list[tuple[str, float]]) -> None:
        self._kept = kept

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Notes what a part takes."""
        begun = time.monotonic()
        yield
        self._kept.append((part, time.monotonic() - begun))

    def note(self, line: str) -> None:
        """Notes a line that is no time."""
        self._kept.append((line, -1.0))


@pytest.fixture(scope="session")
def times(request: pytest.FixtureRequest) -> Times:
    return Times(request.config.stash.setdefault(_TIMES, []))


@pytest.fixture(scope="session")
def image(times: Times) -> str:
    """The image of this checkout; `COMITY_BASE` names the base image, `COMITY_IMAGE` one that is built already."""
    if ready := os.environ.get("COMITY_IMAGE"):
        return ready
    base = ["--build-arg", f"BASE={os.environ['COMITY_BASE']}"] if "COMITY_BASE" in os.environ else []
    with times.of("build the image"):
        docker("build", "--network=host", "-f", str(ROOT / "deploy" / "Dockerfile"), *base, "-t", "comity", str(ROOT))
    size = int(docker("image", "inspect", "--format", "{{.Size}}", "comity"))
    times.note(f"the image takes {size / 1e9:.1f} GB")
    return "comity"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if kept := config.stash.get(_TIMES, []):
        terminalreporter.section("what it took")
        for part, seconds in kept:
            terminalreporter.write_line(part if seconds < 0 else f"{seconds:7.1f} s  {part}")
