"""A teacher's daemon under attack while an honest session with it is on."""

from __future__ import annotations

import pytest

from tests.e2e.hostile.daemons import during, line, parallel, site, target
from tests.e2e.hostile.parties import Play
from tests.e2e.hostile.votes import PLAY

__all__ = ["during", "line", "parallel", "site", "target"]


@pytest.fixture(scope="package")
def play() -> Play:
    """A student's session with a teacher."""
    return PLAY
