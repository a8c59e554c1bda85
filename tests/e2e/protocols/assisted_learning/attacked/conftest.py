"""A provider's daemon under attack while an honest session with it is on, and a learner's whose provider cheats."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from comity.simulation.in_process import simulate
from comity.transport.peer_connection import PeerConnection
from tests.e2e.conftest import Site
from tests.e2e.hostile.daemons import during, line, parallel, site, target
from tests.e2e.hostile.parties import NUMBERS, Play, Target, data
from tests.e2e.protocols.assisted_learning.attacked.attacks import PLAY, Attack, Learner, agreed

__all__ = ["during", "line", "parallel", "site", "target"]


@pytest.fixture(scope="package")
def play() -> Play:
    """A learner's session with a provider."""
    return PLAY


@pytest.fixture
def attack(line: PeerConnection, during: None) -> Iterator[Attack]:
    """A session of Mallory's to try things in."""
    del during
    with agreed(line, f"m-{next(NUMBERS)}") as session:
        yield session


@pytest.fixture(scope="package")
def learner(site: Site, target: Target) -> Iterator[Learner]:
    """A learner's daemon; at the end it completes a session with the honest provider."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        address = f"127.0.0.1:{found.getsockname()[1]}"
    peers = {"provider": {"address": target.address}, "cheat": {"address": address}}
    retry = {"call_s": 10.0, "retry_s": 1.0}
    privacy = {"preset": "public"}
    config = {"secret": "learner's", "data": data("learner"), "peers": peers, "retry": retry, "privacy": privacy}
    node = Learner(site.start("learner", "learner", **config), site.identity("cheat"), address)
    yield node
    assert node.node.exit_code() is None, node.node.last_words()
    digest = node.run(PLAY.text.format(id="honest", acceptor="provider", rounds=2))["digest"]
    assert digest == simulate(PLAY.script("honest"))[1].digest
