"""A teacher's daemon under attack while an honest session with it is on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from comity.transport.peer_connection import PeerConnection
from tests.e2e.conftest import Site, opened_site
from tests.e2e.hostile.parties import QUICK, Parallel, Target
from tests.e2e.hostile.votes import PLAY


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    """One place for the daemons of all attacks."""
    with opened_site() as opened:
        yield opened


@pytest.fixture(scope="package")
def target(site: Site) -> Target:
    """The teacher's daemon."""
    return PLAY.started(site)


@pytest.fixture(scope="package")
def parallel(target: Target) -> Iterator[Parallel]:
    """The honest session."""
    with PLAY.played(target) as session:
        yield session


@pytest.fixture
def during(target: Target, parallel: Parallel) -> Iterator[None]:
    """A round of the honest session runs during the test, and the daemon is alive after it."""
    round = parallel.step()
    yield
    parallel.wait(round)
    target.require_alive()


@pytest.fixture
def line(target: Target) -> Iterator[PeerConnection]:
    """Mallory's line to the teacher."""
    with PeerConnection(target.mallory, "hospital", target.address, QUICK) as connection:
        yield connection
