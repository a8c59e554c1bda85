"""Sessions between two machines whose cable loses packets, is slow, and is unplugged: each ends as one in one process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.node.control_client import ControlClient
from comity.node.sessions.script import Script
from comity.simulation.in_process import simulate
from tests.cases import PROTOCOLS, plain
from tests.e2e.cable import Cable, joined, refused
from tests.e2e.conftest import until
from tests.ledgers import charged_once, kept

SAME = ("digest", "metrics", "bytes_sent", "bytes_received", "ledger_verified")
DEADLINE_S = 200.0
AWAY_S = 90.0
"""How soon a peer that is gone without a word is noticed, with the keepalive of nodes as they are; and a machine's haste."""


def lossy(cable: Cable) -> None:
    """Every twentieth packet is lost, and a way takes 20 ms."""
    cable.be(loss=0.05, delay_s=0.02)


def narrow(cable: Cable) -> None:
    """A megabit a second, and a way takes 100 ms."""
    cable.be(delay_s=0.1, bytes_per_s=125_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sessions_over_a_long_cable(protocol: str) -> None:
    if reason := refused():
        pytest.skip(f"no two network namespaces here: {reason}")
    script = plain(protocol).script
    initiator = next(each for each in script.party if each not in script.session.acceptors)
    with TemporaryDirectory(prefix="e2e-") as name, ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        folder = Path(name)
        cable, nodes = stack.enter_context(joined(script, folder))
        clients = {each: stack.enter_context(ControlClient(node.control_url)) for each, node in nodes.items()}
        operator = clients[initiator]

        def run() -> dict[str, object]:
            with SessionProgress(quiet=True) as progress:
                return drive(script, clients, progress)[0]

        for trouble in (lossy, narrow):
            script.session.id = trouble.__name__
            trouble(cable)
            require_whole(script, pool.submit(run).result(DEADLINE_S), folder)
        assert cable.lost > 0

        # Unplugged before anybody answers: who asks waits, says for whom, and goes on when it is plugged in.
        cable.be()
        script.session.id = "unplugged"
        begun = len(operator.sessions())
        cable.is_plugged = False
        if not plain(protocol).definition.topology.is_joined:
            running = pool.submit(run)
            until(lambda: len(operator.sessions()) > begun, "the session is asked for")
        else:
            # To join takes an answer; the cable goes when the first round is over.
            cable.is_plugged = True
            running = pool.submit(run)
            until(lambda: len(operator.sessions()) > begun, "the session is joined")
            cable.is_plugged = False

        def waits() -> bool:
            wait = [each.reason for row in operator.sessions() for each in row.waits]
            return set(wait) == {"peer-away"} or running.done()

        until(waits, "the initiator waits for its peer", deadline_s=AWAY_S)
        assert operator.sessions()[-1].state == "waiting"
        cable.is_plugged = True
        require_whole(script, running.result(DEADLINE_S), folder)


def require_whole(script: Script, result: dict[str, object], folder: Path) -> None:
    """A session came to what it comes to in one process, and what was bought was bought once."""
    expected = simulate(script)[0].to_json()
    assert {each: result[each] for each in SAME} == {each: expected[each] for each in SAME}
    chains = {party: kept(folder / party / "state") for party in script.party}
    charged_once(script, chains)


def test_a_machine_without_namespaces_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert refused() == "not root"
