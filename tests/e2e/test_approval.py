"""A proposal that waits for an operator: both daemons wait, also over restarts, until somebody decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script, session_text
from comity.simulation.in_process import simulate
from comity.simulation.processes import NodeProcess, prepare

SCRIPT = """\
[session]
protocol = "federated_count"
id = "{id}"
acceptors = ["hospital"]
rounds = 2

[party.clinic]
role = "analyst"
secret = "c"
policy = {{ egress = ["contract", "count"] }}
data = {{ source = "digits", per_class = 20, partition = {{ name = "imbalance", gamma = 0.3, share = "learner" }} }}

[party.hospital]
role = "site"
secret = "h"
data = {{ source = "digits", per_class = 20, partition = {{ name = "imbalance", gamma = 0.3, share = "provider" }} }}
policy = {{ egress = ["contract", "count"], approve = "ask", max_sessions = 2{policy} }}
"""


class Pair:
    """A clinic, and a hospital whose operator is asked."""

    def __init__(self, folder: Path, nodes: dict[str, NodeProcess]) -> None:
        self.folder = folder
        self.clinic, self.hospital = nodes["clinic"], nodes["hospital"]

    def script(self, id: str) -> Path:
        """A session's script, as the clinic's operator has it."""
        path = self.folder / f"{id}.toml"
        path.write_text(session_text(parse_script(SCRIPT.format(id=id, policy=""))))
        return path

    def summary(self, party: str, session: str) -> Any:
        """What a party's node says of a session."""
        with ControlClient(self.node(party).control_url) as control:
            return control.details(session).summary

    def state(self, party: str, session: str) -> str:
        """How a session stands at a party; empty where it is not known."""
        with ControlClient(self.node(party).control_url) as control:
            return next((each.state for each in control.sessions() if each.session == session), "")

    def node(self, party: str) -> NodeProcess:
        """A party's node."""
        return {"clinic": self.clinic, "hospital": self.hospital}[party]


@contextmanager
def started(folder: Path, policy: str = "") -> Iterator[Pair]:
    nodes = prepare(parse_script(SCRIPT.format(id="none", policy=policy)), folder)
    try:
        for node in nodes.values():
            node.start()
        for node in nodes.values():
            node.wait_ready()
        yield Pair(folder, nodes)
    finally:
        for node in nodes.values():
            node.stop()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with TemporaryDirectory(prefix="e2e-") as folder, started(Path(folder)) as nodes:
        yield nodes


def test_both_wait_over_restarts_and_go_on_when_it_is_accepted(
    short_path: Path, comity: Any, wait_until: Callable[..., None]
) -> None:
    with started(short_path) as pair:
        begun = comity.json("run", pair.script("wanted"), "--detach", "--node", "clinic", cwd=pair.folder)
        assert begun["state"] == "waiting"
        assert begun["waiting"]["reason"] == "approval-elsewhere"
        for party, reason in (("clinic", "approval-elsewhere"), ("hospital", "approval")):
            summary = pair.summary(party, "wanted")
            assert (summary.state, [each.reason for each in summary.waits]) == ("waiting", [reason])
        listed = comity("sessions", "--node", "hospital", cwd=pair.folder).stdout
        assert "comity sessions accept wanted" in listed
        for node in (pair.hospital, pair.clinic):
            node.kill()
            node.start()
            node.wait_ready()
        wait_until(lambda: pair.state("clinic", "wanted") == "waiting", "the clinic waits again")
        assert pair.state("hospital", "wanted") == "waiting"
        with comity.begun("watch", "wanted", "--node", "hospital", cwd=pair.folder) as (follower, _):
            assert comity("sessions", "accept", "wanted", "--node", "hospital", cwd=pair.folder).returncode == 0
            assert follower.wait(60) == 0, follower.stderr.read()
        result = comity.json("watch", "wanted", "--node", "clinic", cwd=pair.folder)
        assert result["metrics"] == simulate(parse_script(SCRIPT.format(id="wanted", policy="")))[0].metrics
        line = comity.fails("sessions", "accept", "wanted", "--node", "hospital", cwd=pair.folder, code=2)
        assert "does not wait for approval" in line


def test_a_refusal_reaches_the_initiator_with_its_reason(
    pair: Pair, comity: Any, wait_until: Callable[..., None]
) -> None:
    with comity.begun("run", pair.script("unwanted"), "--node", "clinic", cwd=pair.folder) as (follower, _):
        wait_until(lambda: pair.state("hospital", "unwanted") == "waiting", "it is proposed")
        refused = comity.json(
            "sessions", "refuse", "unwanted", "--reason", "not before spring", "--node", "hospital", cwd=pair.folder
        )
        assert (refused["state"], refused["reason"]) == ("refused", "not before spring")
        assert follower.wait(60) == 3
        assert "hospital's operator refuses the session: received not before spring" in follower.stderr.read()
    assert (pair.state("clinic", "unwanted"), pair.state("hospital", "unwanted")) == ("refused", "refused")
    shown = comity("show", "unwanted", "--node", "clinic", cwd=pair.folder).stdout
    assert "why     hospital's operator refuses the session: received not before spring" in shown


def test_what_is_cancelled_meanwhile_is_taken_back(pair: Pair, comity: Any, wait_until: Callable[..., None]) -> None:
    comity.json("run", pair.script("taken-back"), "--detach", "--node", "clinic", cwd=pair.folder)
    assert comity.json("cancel", "taken-back", "--node", "clinic", cwd=pair.folder)["peer_told"]
    wait_until(lambda: pair.state("hospital", "taken-back") == "cancelled", "the hospital knows")
    comity.fails("sessions", "accept", "taken-back", "--node", "hospital", cwd=pair.folder, code=2)


def test_what_waits_counts_as_its_partys_and_its_time_is_bounded(
    short_path: Path, comity: Any, wait_until: Callable[..., None]
) -> None:
    with started(short_path, policy=", max_wait_s = 8.0, max_sessions_a_party = 2") as pair:
        for name in ("first", "second"):
            begun = comity.json("run", pair.script(name), "--detach", "--node", "clinic", cwd=pair.folder)
            assert begun["state"] == "waiting"
        line = comity.fails("run", pair.script("third"), "--detach", "--node", "clinic", cwd=pair.folder, code=3)
        assert "policy.max_sessions_a_party" in line
        line = comity.fails("watch", "first", "--node", "clinic", cwd=pair.folder, code=3)
        assert "policy.max_wait_s" in line
        wait_until(lambda: pair.state("hospital", "first") == "refused", "the hospital has given up")
