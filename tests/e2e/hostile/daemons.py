"""An acceptor's daemon under attack while an honest session with it is on, whatever its protocol.

A package of attacks has a conftest with a fixture `play`, what is played, and takes these fixtures from here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from comity.transport.peer_connection import PeerConnection
from tests.e2e.conftest import Site, opened_site
from tests.e2e.hostile.parties import QUICK, Parallel, Play, Target


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    """One place for the daemons of all attacks."""
    with opened_site() as opened:
        yield opened


@pytest.fixture(scope="package")
def target(play: Play, site: Site) -> Target:
    """The acceptor's daemon."""
    return play.started(site)


@pytest.fixture(scope="package")
def parallel(play: Play, target: Target) -> Iterator[Parallel]:
    """The honest session."""
    with play.played(target) as session:
        yield session


@pytest.fixture
def during(target: Target, parallel: Parallel) -> Iterator[None]:
    """A round of the honest session runs during the test, and the daemon is alive after it."""
    round = parallel.step()
    yield
    parallel.wait(round)
    target.require_alive()


@pytest.fixture
def line(play: Play, target: Target) -> Iterator[PeerConnection]:
    """Mallory's line to the acceptor."""
    with PeerConnection(target.mallory, play.acceptor, target.address, QUICK) as connection:
        yield connection
