"""The daemons of a learner and a provider, started as a user starts them: training that fails, and stopping in its middle."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from comity.node.sessions.script import Script
from comity.session.outcome import Outcome
from tests.e2e.test_cli import RETRY_S, stops_well

PROVIDER = """\
party = "hospital"
state_dir = "state"
listen = "{listen}"
secret = "hospital's"

[tls]
certificate = "tls/certificate.pem"
key = "tls/key.pem"
trust = "tls/trust.pem"

[data]
source = "digits"
seed = 5
per_class = 20
partition = {{ name = "imbalance", gamma = 0.3, share = "provider", seed = 5 }}

[policy]
parties = ["clinic"]
max_rounds = 20

[privacy]
preset = "public"
"""
LEARNER = """\
party = "clinic"
state_dir = "state"
secret = "clinic's"

[tls]
certificate = "tls/certificate.pem"
key = "tls/key.pem"
trust = "tls/trust.pem"

[data]
source = "digits"
seed = 5
per_class = 20
partition = {{ name = "imbalance", gamma = 0.3, share = "learner", seed = 5 }}

[policy]
max_rounds = 30

[privacy]
preset = "public"

[peers.hospital]
address = "{address}"

[retry]
call_s = 5
retry_s = {retry_s}
"""
SESSION = """\
[session]
protocol = "assisted_learning"
id = "{id}"
acceptors = ["hospital"]
rounds = {rounds}
seed = 5

[session.model]
name = "mlp"
options = {{ hidden = 16 }}

[session.terms]
learning_rate = {learning_rate}
batch_size = 32
iterations = {iterations}
sampling_period = {sampling_period}
evaluation_batch_size = 32
"""
PARTIES = """\
[party.{name}]
role = "{role}"
secret = "{name}'s"
[party.{name}.data]
source = "digits"
seed = 5
per_class = 20
partition = {{ name = "imbalance", gamma = 0.3, share = "{role}", seed = 5 }}
"""


def session(
    id: str, *, rounds: int = 2, learning_rate: float = 0.003, iterations: int = 40, sampling_period: int = 5
) -> str:
    values = {"rounds": rounds, "learning_rate": learning_rate}
    return SESSION.format(id=id, iterations=iterations, sampling_period=sampling_period, **values)


@dataclass
class Pair:
    """A provider and a learner.

    Attributes:
        hand: Who started them.
        provider: The provider's node.
        learner: The learner's node.
        address: Where the provider listens.
    """

    hand: Any
    provider: Any
    learner: Any
    address: str

    @property
    def node(self) -> Path:
        """What `--node` takes."""
        return self.learner.folder / "state"

    def follow(self, path: Path) -> subprocess.Popen[str]:
        """`comity run`, which goes on."""
        process: subprocess.Popen[str] = self.hand.follow("comity", "run", path, "--node", self.node, cwd=self.node)
        return process


def start_pair(hand: Any, *, retry_s: float) -> Pair:
    """Both nodes, the provider by `comity node`, the learner by its module."""
    provider = hand.start(
        ["comity", "node", "provider", "--config", "node.toml"],
        hand.write("hospital", PROVIDER.format(listen="127.0.0.1:0")),
    )
    address = hand.ready(provider)
    home = hand.write("clinic", LEARNER.format(address=address, retry_s=retry_s))
    learner = hand.start([sys.executable, "-m", "learner_node", "--config", home / "node.toml"], home)
    hand.ready(learner)
    return Pair(hand, provider, learner, address)


@pytest.fixture(scope="module")
def pair(hand: Any) -> Iterator[Pair]:
    """Two nodes for the tests of this file; they stop as they should at the end."""
    nodes = start_pair(hand, retry_s=RETRY_S)
    yield nodes
    for node in (nodes.learner, nodes.provider):
        stops_well(node)


@pytest.fixture
def script(short_path: Path) -> Callable[..., Path]:
    """Writes a session's script."""

    def write(id: str, text: str = "", **values: Any) -> Path:
        path = short_path / "session.toml"
        path.write_text(text or session(id, **values))
        return path

    return write


Simulated = Callable[[str], tuple[Script, Outcome]]


def with_parties(text: str) -> str:
    parties = (("clinic", "learner"), ("hospital", "provider"))
    return text + "".join(PARTIES.format(name=name, role=role) for name, role in parties)


def test_run_shows_a_session(pair: Pair, comity: Any, script: Callable[..., Path], simulated: Simulated) -> None:
    done = comity("run", script("shown"), "--node", pair.node, cwd=pair.learner.folder)
    assert done.returncode == 0, done.stderr
    digest = simulated(with_parties(session("shown")))[1].digest
    assert f"model digest {digest}" in done.stdout
    for word in ("assisted", "checkpoint", "loss", "ledger verified", "session shown, 2 rounds"):
        assert word in done.stdout
    # A pipe gets plain lines: one a round, and nothing that moves a cursor.
    assert len([line for line in done.stderr.splitlines() if line.split()[:1] in (["1"], ["2"])]) == 2
    assert "\x1b" not in done.stderr + done.stdout


def test_a_report_shows_all_that_the_rounds_did(pair: Pair, comity: Any, script: Callable[..., Path]) -> None:
    comity.json("run", script("reported", rounds=1), cwd=pair.learner.folder)
    comity.json("report", "reported", "--node", pair.node, "--out", "reported.html", cwd=pair.node)
    assert (pair.node / "reported.html").read_text().count("<svg") >= 5


def test_training_that_diverges_is_said_so(pair: Pair, comity: Any, script: Callable[..., Path]) -> None:
    path = script("", session("r-3", learning_rate=1e30))
    line = comity.fails("run", path, "--node", pair.node, cwd=pair.node, code=1)
    for part in ("training diverged in round 1", "lower the session's learning_rate"):
        assert part in line


def test_sessions_that_failed_leave_room_for_others(pair: Pair, comity: Any, script: Callable[..., Path]) -> None:
    """The provider takes four sessions at a time: those of a learner that gave up are none of them."""
    for number in range(5):
        text = session(f"diverged-{number}", rounds=1, learning_rate=1e30)
        line = comity.fails("run", script("", text), cwd=pair.learner.folder, code=1)
        assert "training diverged" in line
    assert comity.json("run", script("after-failures", rounds=1), cwd=pair.learner.folder)["rounds"] == 1


def last_line(process: subprocess.Popen[str], *, code: int) -> str:
    """The last line of a command that ends with an exit code."""
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "Traceback" not in told
    return told.splitlines()[-1]


@pytest.mark.slow
def test_nodes_that_are_stopped_in_the_middle_of_a_session(
    own_hand: Any, comity: Any, script: Callable[..., Path], wait_until: Callable[..., None]
) -> None:
    nodes = start_pair(own_hand, retry_s=RETRY_S)

    # The learner: who follows the session is told, and the learner can be started again at once.
    process = nodes.follow(script("left", rounds=20, iterations=4000, sampling_period=50))
    wait_until(lambda: nodes.provider.logged("picked", session="left"), "the session is on")
    stops_well(nodes.learner)
    assert last_line(process, code=1).startswith("comity: ")
    assert not (nodes.node / "sessions" / "left").exists()
    home = nodes.learner.folder
    nodes.learner = nodes.hand.start([sys.executable, "-m", "learner_node", "--config", home / "node.toml"], home)
    nodes.hand.ready(nodes.learner)
    assert comity.json("run", script("again", rounds=1), "--node", nodes.node, cwd=nodes.node)["rounds"] == 1

    # The provider: it does not finish what may take minutes, here 300,000 steps to its second checkpoint. The learner
    # waits for it as long as its retry lasts.
    path = script("stopped", rounds=3, iterations=1_000_000, sampling_period=300_000)
    process = nodes.follow(path)
    wait_until(lambda: nodes.provider.logged("picked", session="stopped"), "the provider trains")
    stops_well(nodes.provider)
    began = time.monotonic()
    line = last_line(process, code=1)
    # Whichever the learner met last: a node that stops, or none.
    assert line.startswith(
        (
            f"comity: hospital cannot be reached: expected a node at {nodes.address}, received ",
            "comity: the session is being stopped; try again",
        )
    )
    assert time.monotonic() - began < RETRY_S + 10
    stops_well(nodes.learner)
